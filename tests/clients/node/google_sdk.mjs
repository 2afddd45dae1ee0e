// The official Google Gen AI SDK for JavaScript.

import { GoogleGenAI } from "@google/genai";
import { z } from "zod";

import {
  KEY, ORIGIN, PNG_BASE64, PROMPT, SYSTEM, TOOL, TOOL_DOES, TOOL_RESULT, TOOL_SCHEMA, City,
  expect, expectCalls, expectCity, expectStream, expectWords, usage,
} from "./asks.mjs";

export class Generate {
  models = new GoogleGenAI({ apiKey: KEY, httpOptions: { baseUrl: ORIGIN } }).models;

  used(told) {
    const thought = told.thoughtsTokenCount ?? 0;
    return usage(
      told.promptTokenCount, (told.candidatesTokenCount ?? 0) + thought,
      told.cachedContentTokenCount ?? 0, thought,
    );
  }

  body(model, contents = PROMPT, more = {}) {
    return { model, contents, config: { systemInstruction: SYSTEM, ...more } };
  }

  async chat(model) {
    const done = await this.models.generateContent(this.body(model));
    expectWords(done.text);
    expect(done.candidates[0].finishReason === "STOP", done.candidates);
    return [this.used(done.usageMetadata)];
  }

  async chunks(body) {
    const chunks = [];
    for await (const chunk of await this.models.generateContentStream(body)) chunks.push(chunk);
    return chunks;
  }

  async stream(model) {
    const chunks = await this.chunks(this.body(model));
    expectStream(chunks.map((chunk) => chunk.text));
    expect(chunks.at(-1).candidates[0].finishReason === "STOP", chunks.at(-1));
    return [this.used(chunks.at(-1).usageMetadata)];
  }

  async tools(model) {
    const declared = { name: TOOL, description: TOOL_DOES, parametersJsonSchema: TOOL_SCHEMA };
    const tools = [{ functionDeclarations: [declared] }];
    const whole = async (body) => [await this.models.generateContent(body)];
    const streamed = (body) => this.chunks(body);
    const used = [];
    for (const [first, last] of [[whole, streamed], [streamed, whole]]) {
      const contents = [{ role: "user", parts: [{ text: PROMPT }] }];
      const asks = await first(this.body(model, contents, { tools }));
      const parts = asks.flatMap((chunk) => chunk.candidates?.[0]?.content?.parts ?? []);
      const calls = parts.flatMap((part) => part.functionCall ?? []);
      expectCalls(calls.map((call) => [call.name, call.args]));
      const results = calls.map(({ id, name }) => (
        { functionResponse: { id, name, response: { result: TOOL_RESULT } } }));
      contents.push({ role: "model", parts }, { role: "user", parts: results });
      const answer = await last(this.body(model, contents, { tools }));
      expectWords(answer.map((chunk) => chunk.text ?? "").join(""));
      used.push(this.used(asks.at(-1).usageMetadata), this.used(answer.at(-1).usageMetadata));
    }
    return used;
  }

  async vision(model) {
    const image = { inlineData: { mimeType: "image/png", data: PNG_BASE64 } };
    const done = await this.models.generateContent(this.body(model, [image, { text: PROMPT }]));
    expectWords(done.text);
    return [this.used(done.usageMetadata)];
  }

  async embeddings(model) {
    const done = await this.models.embedContent({ model, contents: ["one text", "another text"] });
    expect(done.embeddings.length === 2, `two vectors, not ${done.embeddings.length}`);
    expect(done.embeddings[0].values.every(Number.isFinite), "numbers");
    return [usage(null, null)];
  }

  async structured(model) {
    const form = { responseMimeType: "application/json", responseJsonSchema: z.toJSONSchema(City) };
    const done = await this.models.generateContent(this.body(model, PROMPT, form));
    expectCity(JSON.parse(done.text));
    return [this.used(done.usageMetadata)];
  }
}
