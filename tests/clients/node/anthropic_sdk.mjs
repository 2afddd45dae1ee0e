// The official Anthropic SDK for TypeScript.

import Anthropic from "@anthropic-ai/sdk";
import { zodOutputFormat } from "@anthropic-ai/sdk/helpers/zod";

import {
  KEY, ORIGIN, PNG_BASE64, PROMPT, SYSTEM, TOOL, TOOL_DOES, TOOL_RESULT, TOOL_SCHEMA, City,
  expect, expectCalls, expectCity, expectStream, expectWords, usage,
} from "./asks.mjs";

export class Messages {
  client = new Anthropic({ baseURL: ORIGIN, apiKey: KEY, maxRetries: 0 });

  used(told) {
    const read = told.cache_read_input_tokens ?? 0;
    const written = told.cache_creation_input_tokens ?? 0;
    return usage(
      told.input_tokens + read + written, told.output_tokens, read,
      told.output_tokens_details?.thinking_tokens,
    );
  }

  body(model, content = PROMPT) {
    const messages = [{ role: "user", content }];
    return { model, max_tokens: 1024, system: SYSTEM, messages };
  }

  text(done) {
    return done.content.map((block) => block.text ?? "").join("");
  }

  async chat(model) {
    const done = await this.client.messages.create(this.body(model));
    expectWords(this.text(done));
    expect(done.stop_reason === "end_turn", done.stop_reason);
    return [this.used(done.usage)];
  }

  async stream(model) {
    const pieces = [];
    const stream = this.client.messages.stream(this.body(model));
    stream.on("text", (piece) => pieces.push(piece));
    const done = await stream.finalMessage();
    expectStream(pieces);
    expect(done.stop_reason === "end_turn", done.stop_reason);
    return [this.used(done.usage)];
  }

  async tools(model) {
    const tools = [{ name: TOOL, description: TOOL_DOES, input_schema: TOOL_SCHEMA }];
    const whole = (body) => this.client.messages.create(body);
    const streamed = (body) => this.client.messages.stream(body).finalMessage();
    const used = [];
    for (const [first, last] of [[whole, streamed], [streamed, whole]]) {
      const body = { ...this.body(model), tools };
      const asks = await first(body);
      expect(asks.stop_reason === "tool_use", asks.stop_reason);
      const calls = asks.content.filter((block) => block.type === "tool_use");
      expectCalls(calls.map((call) => [call.name, call.input]));
      const results = calls.map(({ id }) => (
        { type: "tool_result", tool_use_id: id, content: TOOL_RESULT }));
      body.messages.push(
        { role: "assistant", content: asks.content }, { role: "user", content: results });
      const answer = await last(body);
      expectWords(this.text(answer));
      used.push(this.used(asks.usage), this.used(answer.usage));
    }
    return used;
  }

  async vision(model) {
    const source = { type: "base64", media_type: "image/png", data: PNG_BASE64 };
    const content = [{ type: "image", source }, { type: "text", text: PROMPT }];
    const done = await this.client.messages.create(this.body(model, content));
    expectWords(this.text(done));
    return [this.used(done.usage)];
  }

  async structured(model) {
    const output_config = { format: zodOutputFormat(City) };
    const done = await this.client.messages.parse({ ...this.body(model), output_config });
    expectCity(done.parsed_output);
    return [this.used(done.usage)];
  }
}
