"""LangChain for Python, by its packages for OpenAI, Anthropic and Google."""

from langchain_anthropic import ChatAnthropic
from langchain_core.messages import HumanMessage, SystemMessage, ToolMessage
from langchain_google_genai import ChatGoogleGenerativeAI, GoogleGenerativeAIEmbeddings
from langchain_openai import ChatOpenAI, OpenAIEmbeddings

from asks import (
    KEY, ORIGIN, PNG_BASE64, PROMPT, SYSTEM, TOOL, TOOL_DOES, TOOL_RESULT, TOOL_SCHEMA, City,
    expect, expect_calls, expect_city, expect_stream, expect_words, usage,
)


class LangChain:
    """All features by LangChain's own abstractions; `llm` is the package's."""

    @staticmethod
    def used(message):
        told = message.usage_metadata
        into, out = told.get("input_token_details", {}), told.get("output_token_details", {})
        return usage(told["input_tokens"], told["output_tokens"],
                     into.get("cache_read"), out.get("reasoning"))

    @staticmethod
    def asked(content=PROMPT):
        return [SystemMessage(SYSTEM), HumanMessage(content)]

    def chat(self, model):
        done = self.llm(model).invoke(self.asked())
        expect_words(done.text)
        return [self.used(done)]

    @staticmethod
    def whole(llm, turns):
        message = None
        for chunk in llm.stream(turns):
            message = chunk if message is None else message + chunk
        return message

    def stream(self, model):
        chunks = list(self.llm(model).stream(self.asked()))
        expect_stream([chunk.text for chunk in chunks])
        message = chunks[0]
        for chunk in chunks[1:]:
            message = message + chunk
        return [self.used(message)]

    def tools(self, model):
        offered = [{"type": "function", "function": {
            "name": TOOL, "description": TOOL_DOES, "parameters": TOOL_SCHEMA}}]
        llm = self.llm(model).bind_tools(offered)
        used = []
        for first, last in [(llm.invoke, lambda turns: self.whole(llm, turns)),
                            (lambda turns: self.whole(llm, turns), llm.invoke)]:
            turns = self.asked()
            done = first(turns)
            expect_calls((call["name"], call["args"]) for call in done.tool_calls)
            turns.append(done)
            turns += [ToolMessage(TOOL_RESULT, tool_call_id=call["id"], name=call["name"])
                      for call in done.tool_calls]
            used.append(self.used(done))
            done = last(turns)
            expect_words(done.text)
            used.append(self.used(done))
        return used

    def vision(self, model):
        image = {"type": "image", "base64": PNG_BASE64, "mime_type": "image/png"}
        done = self.llm(model).invoke(self.asked([{"type": "text", "text": PROMPT}, image]))
        expect_words(done.text)
        return [self.used(done)]

    def structured(self, model):
        llm = self.llm(model).with_structured_output(City, include_raw=True, method="json_schema")
        done = llm.invoke(self.asked())
        expect(done["parsing_error"] is None, f"{done['parsing_error']}")
        expect_city(done["parsed"])
        return [self.used(done["raw"])]


class OpenAI(LangChain):
    def llm(self, model, **more):
        return ChatOpenAI(model=model, base_url=f"{ORIGIN}/v1", api_key=KEY, max_retries=0,
                          stream_usage=True, **more)

    def embeddings(self, model):
        embed = OpenAIEmbeddings(model=model, base_url=f"{ORIGIN}/v1", api_key=KEY,
                                 check_embedding_ctx_length=False, max_retries=0)
        vectors = embed.embed_documents(["one text", "another text"])
        expect(len(vectors) == 2 and isinstance(vectors[0][0], float), "two vectors")
        return [usage(None, None)]


class OpenAIResponses(OpenAI):
    def llm(self, model):
        return super().llm(model, use_responses_api=True)


class Anthropic(LangChain):
    def llm(self, model):
        return ChatAnthropic(model=model, base_url=ORIGIN, api_key=KEY, max_retries=0,
                             max_tokens=1024)


class Google(LangChain):
    def llm(self, model):
        return ChatGoogleGenerativeAI(model=model, base_url=ORIGIN, google_api_key=KEY,
                                      max_retries=1)

    def embeddings(self, model):
        embed = GoogleGenerativeAIEmbeddings(model=model, base_url=ORIGIN, google_api_key=KEY)
        vectors = embed.embed_documents(["one text", "another text"])
        expect(len(vectors) == 2 and isinstance(vectors[0][0], float), "two vectors")
        return [usage(None, None)]
