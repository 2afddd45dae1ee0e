"""The official OpenAI SDK for Python: chat completions, Responses and embeddings."""

import json

import openai

from asks import (
    KEY, ORIGIN, PNG_URL, PROMPT, SYSTEM, TOOL, TOOL_DOES, TOOL_RESULT, TOOL_SCHEMA, City,
    expect, expect_calls, expect_city, expect_stream, expect_words, usage,
)


def client():
    return openai.OpenAI(base_url=f"{ORIGIN}/v1", api_key=KEY, max_retries=0)


class Chat:
    def __init__(self):
        self.client = client()

    @staticmethod
    def used(told):
        details, more = told.prompt_tokens_details, told.completion_tokens_details
        expect(told.total_tokens == told.prompt_tokens + told.completion_tokens, f"{told}")
        return usage(
            told.prompt_tokens, told.completion_tokens,
            details and details.cached_tokens, more and more.reasoning_tokens,
        )

    @staticmethod
    def asked(content=PROMPT):
        return [{"role": "system", "content": SYSTEM}, {"role": "user", "content": content}]

    def chat(self, model):
        done = self.client.chat.completions.create(model=model, messages=self.asked())
        expect_words(done.choices[0].message.content)
        expect(done.choices[0].finish_reason == "stop", f"{done.choices}")
        return [self.used(done.usage)]

    def stream(self, model):
        chunks = list(self.client.chat.completions.create(
            model=model, messages=self.asked(), stream=True,
            stream_options={"include_usage": True},
        ))
        choices = [chunk.choices[0] for chunk in chunks if chunk.choices]
        expect_stream([choice.delta.content for choice in choices])
        expect(choices[-1].finish_reason == "stop", f"{choices[-1]}")
        told = [chunk.usage for chunk in chunks if chunk.usage]
        expect(len(told) == 1, f"one usage, not {told}")
        return [self.used(told[0])]

    def tools(self, model):
        offered = [{"type": "function", "function": {
            "name": TOOL, "description": TOOL_DOES, "parameters": TOOL_SCHEMA}}]
        turns, used = self.asked(), []
        first = self.client.chat.completions.create(model=model, messages=turns, tools=offered)
        self.answer_calls(first, turns)
        used.append(self.used(first.usage))
        with self.client.chat.completions.stream(
            model=model, messages=turns, tools=offered,
            stream_options={"include_usage": True},
        ) as stream:
            last = stream.get_final_completion()
        expect_words(last.choices[0].message.content)
        used.append(self.used(last.usage))
        turns = self.asked()
        with self.client.chat.completions.stream(
            model=model, messages=turns, tools=offered,
            stream_options={"include_usage": True},
        ) as stream:
            streamed = stream.get_final_completion()
        self.answer_calls(streamed, turns)
        used.append(self.used(streamed.usage))
        last = self.client.chat.completions.create(model=model, messages=turns, tools=offered)
        expect_words(last.choices[0].message.content)
        return [*used, self.used(last.usage)]

    @staticmethod
    def answer_calls(done, turns):
        message = done.choices[0].message
        expect(done.choices[0].finish_reason == "tool_calls", f"{done.choices}")
        calls = message.tool_calls
        expect_calls((c.function.name, json.loads(c.function.arguments)) for c in calls)
        turns.append(message.to_dict())
        for call in calls:
            turns.append({"role": "tool", "tool_call_id": call.id, "content": TOOL_RESULT})

    def vision(self, model):
        content = [{"type": "text", "text": PROMPT},
                   {"type": "image_url", "image_url": {"url": PNG_URL}}]
        done = self.client.chat.completions.create(model=model, messages=self.asked(content))
        expect_words(done.choices[0].message.content)
        return [self.used(done.usage)]

    def structured(self, model):
        done = self.client.chat.completions.parse(
            model=model, messages=self.asked(), response_format=City)
        expect_city(done.choices[0].message.parsed)
        return [self.used(done.usage)]

    def embeddings(self, model):
        done = self.client.embeddings.create(model=model, input=["one text", "another text"])
        expect(len(done.data) == 2, f"{len(done.data)} vectors")
        expect(all(isinstance(x, float) for x in done.data[0].embedding), "floats")
        return [usage(done.usage.prompt_tokens, None)]


class Responses:
    def __init__(self):
        self.client = client()

    @staticmethod
    def used(told):
        expect(told.total_tokens == told.input_tokens + told.output_tokens, f"{told}")
        return usage(
            told.input_tokens, told.output_tokens, told.input_tokens_details.cached_tokens,
            told.output_tokens_details.reasoning_tokens,
        )

    def chat(self, model):
        done = self.client.responses.create(model=model, instructions=SYSTEM, input=PROMPT)
        expect_words(done.output_text)
        expect(done.status == "completed", f"{done.status}")
        return [self.used(done.usage)]

    def stream(self, model):
        with self.client.responses.stream(
            model=model, instructions=SYSTEM, input=PROMPT,
        ) as stream:
            events = list(stream)
            done = stream.get_final_response()
        expect_stream([e.delta for e in events if e.type == "response.output_text.delta"])
        numbers = [event.sequence_number for event in events]
        expect(numbers == sorted(set(numbers)), f"{numbers}")
        expect_words(done.output_text)
        return [self.used(done.usage)]

    def tools(self, model):
        offered = [{"type": "function", "name": TOOL, "description": TOOL_DOES,
                    "parameters": TOOL_SCHEMA, "strict": True}]

        def turn(items):
            return self.client.responses.create(
                model=model, instructions=SYSTEM, input=items, tools=offered)

        def streamed(items):
            with self.client.responses.stream(
                model=model, instructions=SYSTEM, input=items, tools=offered,
            ) as stream:
                stream.until_done()
                return stream.get_final_response()

        used = []
        for first, last in [(turn, streamed), (streamed, turn)]:
            items = [{"role": "user", "content": PROMPT}]
            done = first(items)
            calls = [item for item in done.output if item.type == "function_call"]
            expect_calls((call.name, json.loads(call.arguments)) for call in calls)
            # `parsed_arguments` is the SDK's own.
            items += [item.to_dict(exclude_none=True) if item.type != "function_call" else
                      {"type": item.type, "call_id": item.call_id, "name": item.name,
                       "arguments": item.arguments} for item in done.output]
            items += [{"type": "function_call_output", "call_id": call.call_id,
                       "output": TOOL_RESULT} for call in calls]
            used.append(self.used(done.usage))
            done = last(items)
            expect_words(done.output_text)
            used.append(self.used(done.usage))
        return used

    def vision(self, model):
        content = [{"type": "input_text", "text": PROMPT},
                   {"type": "input_image", "image_url": PNG_URL, "detail": "auto"}]
        done = self.client.responses.create(
            model=model, instructions=SYSTEM, input=[{"role": "user", "content": content}])
        expect_words(done.output_text)
        return [self.used(done.usage)]

    def structured(self, model):
        done = self.client.responses.parse(
            model=model, instructions=SYSTEM, input=PROMPT, text_format=City)
        expect_city(done.output_parsed)
        return [self.used(done.usage)]
