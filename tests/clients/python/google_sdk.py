"""The official Google Gen AI SDK for Python: generateContent."""

from google import genai
from google.genai import types

from asks import (
    KEY, ORIGIN, PNG, PROMPT, SYSTEM, TOOL, TOOL_DOES, TOOL_RESULT, TOOL_SCHEMA, City,
    expect, expect_calls, expect_city, expect_stream, expect_words, usage,
)


class Generate:
    def __init__(self):
        options = types.HttpOptions(base_url=ORIGIN)
        self.client = genai.Client(api_key=KEY, http_options=options)

    @staticmethod
    def used(told):
        thought = told.thoughts_token_count or 0
        return usage(told.prompt_token_count, (told.candidates_token_count or 0) + thought,
                     told.cached_content_token_count or 0, thought)

    @staticmethod
    def config(**more):
        return types.GenerateContentConfig(system_instruction=SYSTEM, **more)

    def chat(self, model):
        done = self.client.models.generate_content(
            model=model, contents=PROMPT, config=self.config())
        expect_words(done.text)
        expect(done.candidates[0].finish_reason == types.FinishReason.STOP, f"{done}")
        return [self.used(done.usage_metadata)]

    def stream(self, model):
        chunks = list(self.client.models.generate_content_stream(
            model=model, contents=PROMPT, config=self.config()))
        expect_stream([chunk.text for chunk in chunks])
        last = chunks[-1]
        expect(last.candidates[0].finish_reason == types.FinishReason.STOP, f"{last}")
        return [self.used(last.usage_metadata)]

    def tools(self, model):
        declared = types.FunctionDeclaration(
            name=TOOL, description=TOOL_DOES, parameters_json_schema=TOOL_SCHEMA)
        config = self.config(
            tools=[types.Tool(function_declarations=[declared])],
            automatic_function_calling=types.AutomaticFunctionCallingConfig(disable=True),
        )

        def whole(contents):
            done = self.client.models.generate_content(
                model=model, contents=contents, config=config)
            return done.candidates[0].content.parts or [], done.usage_metadata

        def streamed(contents):
            chunks = list(self.client.models.generate_content_stream(
                model=model, contents=contents, config=config))
            contents = [c.candidates[0].content for c in chunks if c.candidates]
            parts = [part for content in contents if content for part in content.parts or []]
            return parts, chunks[-1].usage_metadata

        used = []
        for first, last in [(whole, streamed), (streamed, whole)]:
            contents = [types.UserContent(PROMPT)]
            parts, told = first(contents)
            calls = [part.function_call for part in parts if part.function_call]
            expect_calls((call.name, call.args) for call in calls)
            contents.append(types.ModelContent(parts))
            contents.append(types.UserContent([
                types.Part(function_response=types.FunctionResponse(
                    id=call.id, name=call.name, response={"result": TOOL_RESULT}))
                for call in calls]))
            used.append(self.used(told))
            parts, told = last(contents)
            expect_words("".join(part.text or "" for part in parts if not part.thought))
            used.append(self.used(told))
        return used

    def vision(self, model):
        contents = [types.Part.from_bytes(data=PNG, mime_type="image/png"), PROMPT]
        done = self.client.models.generate_content(
            model=model, contents=contents, config=self.config())
        expect_words(done.text)
        return [self.used(done.usage_metadata)]

    def embeddings(self, model):
        done = self.client.models.embed_content(
            model=model, contents=["one text", "another text"])
        expect(len(done.embeddings) == 2, f"two vectors, not {len(done.embeddings)}")
        expect(all(isinstance(x, float) for x in done.embeddings[0].values), "floats")
        return [usage(None, None)]

    def structured(self, model):
        config = self.config(response_mime_type="application/json", response_schema=City)
        done = self.client.models.generate_content(model=model, contents=PROMPT, config=config)
        expect_city(done.parsed)
        return [self.used(done.usage_metadata)]
