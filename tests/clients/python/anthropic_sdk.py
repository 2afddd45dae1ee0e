"""The official Anthropic SDK for Python: messages and count_tokens."""

import anthropic

from asks import (
    KEY, ORIGIN, PNG_BASE64, PROMPT, SYSTEM, TOOL, TOOL_DOES, TOOL_RESULT, TOOL_SCHEMA, City,
    expect, expect_calls, expect_city, expect_stream, expect_words, usage,
)


class Messages:
    def __init__(self):
        self.client = anthropic.Anthropic(base_url=ORIGIN, api_key=KEY, max_retries=0)

    @staticmethod
    def used(told):
        read, written = told.cache_read_input_tokens or 0, told.cache_creation_input_tokens or 0
        details = told.output_tokens_details
        return usage(told.input_tokens + read + written, told.output_tokens, read,
                     details and details.thinking_tokens)

    @staticmethod
    def body(model, content=PROMPT, **more):
        turns = [{"role": "user", "content": content}]
        return {"model": model, "max_tokens": 1024, "system": SYSTEM, "messages": turns, **more}

    @staticmethod
    def text(done):
        return "".join(block.text for block in done.content if block.type == "text")

    def chat(self, model):
        done = self.client.messages.create(**self.body(model))
        expect_words(self.text(done))
        expect(done.stop_reason == "end_turn", f"{done.stop_reason}")
        return [self.used(done.usage)]

    def stream(self, model):
        with self.client.messages.stream(**self.body(model)) as stream:
            pieces = list(stream.text_stream)
            done = stream.get_final_message()
        expect_stream(pieces)
        expect(done.stop_reason == "end_turn", f"{done.stop_reason}")
        return [self.used(done.usage)]

    def tools(self, model):
        offered = [{"name": TOOL, "description": TOOL_DOES, "input_schema": TOOL_SCHEMA}]

        def streamed(**body):
            with self.client.messages.stream(**body) as stream:
                return stream.get_final_message()

        used = []
        for first, last in [(self.client.messages.create, streamed),
                            (streamed, self.client.messages.create)]:
            body = self.body(model, tools=offered)
            done = first(**body)
            expect(done.stop_reason == "tool_use", f"{done.stop_reason}")
            calls = [block for block in done.content if block.type == "tool_use"]
            expect_calls((call.name, call.input) for call in calls)
            body["messages"] += [
                {"role": "assistant", "content": [block.to_dict() for block in done.content]},
                {"role": "user", "content": [
                    {"type": "tool_result", "tool_use_id": call.id, "content": TOOL_RESULT}
                    for call in calls]},
            ]
            used.append(self.used(done.usage))
            done = last(**body)
            expect_words(self.text(done))
            used.append(self.used(done.usage))
        return used

    def vision(self, model):
        source = {"type": "base64", "media_type": "image/png", "data": PNG_BASE64}
        content = [{"type": "image", "source": source}, {"type": "text", "text": PROMPT}]
        done = self.client.messages.create(**self.body(model, content))
        expect_words(self.text(done))
        return [self.used(done.usage)]

    def structured(self, model):
        done = self.client.messages.parse(**self.body(model), output_format=City)
        expect_city(done.parsed_output)
        return [self.used(done.usage)]
