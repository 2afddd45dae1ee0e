// Vercel's AI SDK, by its packages for OpenAI, Anthropic and Google.

import { createAnthropic } from "@ai-sdk/anthropic";
import { createGoogle } from "@ai-sdk/google";
import { createOpenAI } from "@ai-sdk/openai";
import { Output, embedMany, generateText, isStepCount, streamText, tool } from "ai";
import { z } from "zod";

import {
  KEY, ORIGIN, PNG_BASE64, PROMPT, SYSTEM, TOOL, TOOL_DOES, TOOL_RESULT, City,
  expect, expectCalls, expectCity, expectStream, expectWords, usage,
} from "./asks.mjs";

class VercelAI {
  used(told) {
    return usage(
      told.inputTokens, told.outputTokens, told.inputTokenDetails.cacheReadTokens,
      told.outputTokenDetails.reasoningTokens,
    );
  }

  body(model, more = { prompt: PROMPT }) {
    return { model: this.model(model), system: SYSTEM, maxRetries: 0, ...more };
  }

  async chat(model) {
    const done = await generateText(this.body(model));
    expectWords(done.text);
    expect(done.finishReason === "stop", done.finishReason);
    return [this.used(done.usage)];
  }

  async stream(model) {
    const pieces = [];
    const done = streamText({ ...this.body(model), onError: ({ error }) => { throw error; } });
    for await (const piece of done.textStream) pieces.push(piece);
    expectStream(pieces);
    expect((await done.finishReason) === "stop", await done.finishReason);
    return [this.used(await done.usage)];
  }

  async tools(model) {
    const asked = [];
    const weather = tool({
      description: TOOL_DOES,
      inputSchema: z.object({ city: z.string(), days: z.number().int() }),
      execute: async (given) => {
        asked.push([TOOL, given]);
        return TOOL_RESULT;
      },
    });
    const body = { ...this.body(model), tools: { [TOOL]: weather }, stopWhen: isStepCount(3) };
    const whole = await generateText(body);
    expectCalls(asked.splice(0));
    expectWords(whole.text);
    const streamed = streamText(body);
    await streamed.consumeStream();
    expectCalls(asked);
    expectWords(await streamed.text);
    const steps = [...whole.steps, ...(await streamed.steps)];
    return steps.map((step) => this.used(step.usage));
  }

  async vision(model) {
    const content = [
      { type: "text", text: PROMPT },
      { type: "file", data: PNG_BASE64, mediaType: "image/png" }];
    const done = await generateText(this.body(model, { messages: [{ role: "user", content }] }));
    expectWords(done.text);
    return [this.used(done.usage)];
  }

  async embeddings(model) {
    const values = ["one text", "another text"];
    const done = await embedMany({ model: this.provider.embedding(model), values, maxRetries: 0 });
    expect(done.embeddings.length === 2, "two vectors");
    // Google's package shows no usage of embeddings.
    return [usage(Number.isFinite(done.usage.tokens) ? done.usage.tokens : null, null)];
  }

  async structured(model) {
    const output = Output.object({ schema: City });
    const done = await generateText({ ...this.body(model), output });
    expectCity(done.output);
    return [this.used(done.usage)];
  }
}

export class OpenAIChat extends VercelAI {
  provider = createOpenAI({ baseURL: `${ORIGIN}/v1`, apiKey: KEY });

  model(name) {
    return this.provider.chat(name);
  }
}

export class OpenAIResponses extends OpenAIChat {
  model(name) {
    return this.provider.responses(name);
  }
}

export class Anthropic extends VercelAI {
  provider = createAnthropic({ baseURL: `${ORIGIN}/v1`, apiKey: KEY });

  model(name) {
    return this.provider(name);
  }
}

export class Google extends VercelAI {
  provider = createGoogle({ baseURL: `${ORIGIN}/v1beta`, apiKey: KEY });

  model(name) {
    return this.provider(name);
  }
}
