// The official OpenAI SDK for Node: chat completions, Responses and embeddings.

import OpenAI from "openai";
import { zodResponseFormat, zodTextFormat } from "openai/helpers/zod";

import {
  KEY, ORIGIN, PNG_URL, PROMPT, SYSTEM, TOOL, TOOL_DOES, TOOL_RESULT, TOOL_SCHEMA, City,
  expect, expectCalls, expectCity, expectStream, expectWords, usage,
} from "./asks.mjs";

function connect() {
  return new OpenAI({ baseURL: `${ORIGIN}/v1`, apiKey: KEY, maxRetries: 0 });
}

export class Chat {
  client = connect();

  used(told) {
    expect(told.total_tokens === told.prompt_tokens + told.completion_tokens, told);
    return usage(
      told.prompt_tokens, told.completion_tokens, told.prompt_tokens_details?.cached_tokens,
      told.completion_tokens_details?.reasoning_tokens,
    );
  }

  asked(content = PROMPT) {
    return [{ role: "system", content: SYSTEM }, { role: "user", content }];
  }

  async chat(model) {
    const done = await this.client.chat.completions.create({ model, messages: this.asked() });
    expectWords(done.choices[0].message.content);
    expect(done.choices[0].finish_reason === "stop", done.choices);
    return [this.used(done.usage)];
  }

  async stream(model) {
    const chunks = [];
    const stream = await this.client.chat.completions.create({
      model, messages: this.asked(), stream: true, stream_options: { include_usage: true },
    });
    for await (const chunk of stream) chunks.push(chunk);
    const choices = chunks.flatMap((chunk) => chunk.choices);
    expectStream(choices.map((choice) => choice.delta.content));
    expect(choices.at(-1).finish_reason === "stop", choices.at(-1));
    return chunks.filter((chunk) => chunk.usage).map((chunk) => this.used(chunk.usage));
  }

  async tools(model) {
    const described = { name: TOOL, description: TOOL_DOES, parameters: TOOL_SCHEMA };
    const tools = [{ type: "function", function: described }];
    const whole = (messages) => this.client.chat.completions.create({ model, messages, tools });
    const streamed = (messages) =>
      this.client.chat.completions
        .stream({ model, messages, tools, stream_options: { include_usage: true } })
        .finalChatCompletion();
    const used = [];
    for (const [first, last] of [[whole, streamed], [streamed, whole]]) {
      const turns = this.asked();
      const asks = await first(turns);
      const { message, finish_reason } = asks.choices[0];
      expect(finish_reason === "tool_calls", asks.choices);
      const calls = message.tool_calls;
      expectCalls(calls.map(({ function: f }) => [f.name, JSON.parse(f.arguments)]));
      turns.push(message, ...calls.map(({ id }) => (
        { role: "tool", tool_call_id: id, content: TOOL_RESULT })));
      const answer = await last(turns);
      expectWords(answer.choices[0].message.content);
      used.push(this.used(asks.usage), this.used(answer.usage));
    }
    return used;
  }

  async vision(model) {
    const content = [
      { type: "text", text: PROMPT }, { type: "image_url", image_url: { url: PNG_URL } }];
    const messages = this.asked(content);
    const done = await this.client.chat.completions.create({ model, messages });
    expectWords(done.choices[0].message.content);
    return [this.used(done.usage)];
  }

  async structured(model) {
    const done = await this.client.chat.completions.parse({
      model, messages: this.asked(), response_format: zodResponseFormat(City, "city"),
    });
    expectCity(done.choices[0].message.parsed);
    return [this.used(done.usage)];
  }

  async embeddings(model) {
    const input = ["one text", "another text"];
    const done = await this.client.embeddings.create({ model, input });
    expect(done.data.length === 2, "two vectors");
    expect(done.data[0].embedding.every(Number.isFinite), "numbers");
    return [usage(done.usage.prompt_tokens, null)];
  }
}

export class Responses {
  client = connect();

  used(told) {
    expect(told.total_tokens === told.input_tokens + told.output_tokens, told);
    return usage(
      told.input_tokens, told.output_tokens, told.input_tokens_details.cached_tokens,
      told.output_tokens_details.reasoning_tokens,
    );
  }

  async chat(model) {
    const body = { model, instructions: SYSTEM, input: PROMPT };
    const done = await this.client.responses.create(body);
    expectWords(done.output_text);
    expect(done.status === "completed", done.status);
    return [this.used(done.usage)];
  }

  async stream(model) {
    const stream = this.client.responses.stream({ model, instructions: SYSTEM, input: PROMPT });
    const pieces = [];
    for await (const event of stream) {
      if (event.type === "response.output_text.delta") pieces.push(event.delta);
    }
    expectStream(pieces);
    const done = await stream.finalResponse();
    expectWords(done.output_text);
    return [this.used(done.usage)];
  }

  async tools(model) {
    const tools = [{
      type: "function", name: TOOL, description: TOOL_DOES, parameters: TOOL_SCHEMA, strict: true }];
    const body = (input) => ({ model, instructions: SYSTEM, input, tools });
    const whole = (input) => this.client.responses.create(body(input));
    const streamed = (input) => this.client.responses.stream(body(input)).finalResponse();
    const used = [];
    for (const [first, last] of [[whole, streamed], [streamed, whole]]) {
      const items = [{ role: "user", content: PROMPT }];
      const asks = await first(items);
      const calls = asks.output.filter((item) => item.type === "function_call");
      expectCalls(calls.map((call) => [call.name, JSON.parse(call.arguments)]));
      // `parsed_arguments` is the SDK's own.
      items.push(...asks.output.map(({ parsed_arguments: _, ...item }) => item));
      items.push(...calls.map(({ call_id }) => (
        { type: "function_call_output", call_id, output: TOOL_RESULT })));
      const answer = await last(items);
      expectWords(answer.output_text);
      used.push(this.used(asks.usage), this.used(answer.usage));
    }
    return used;
  }

  async vision(model) {
    const content = [
      { type: "input_text", text: PROMPT },
      { type: "input_image", image_url: PNG_URL, detail: "auto" }];
    const input = [{ role: "user", content }];
    const done = await this.client.responses.create({ model, instructions: SYSTEM, input });
    expectWords(done.output_text);
    return [this.used(done.usage)];
  }

  async structured(model) {
    const done = await this.client.responses.parse({
      model, instructions: SYSTEM, input: PROMPT, text: { format: zodTextFormat(City, "city") },
    });
    expectCity(done.output_parsed);
    return [this.used(done.usage)];
  }
}
