// Runs one client: reads cells as lines of JSON, answers each with a line of JSON. The protocol is
// that of python/run.py.

import { createInterface } from "node:readline";

const CLIENTS = {
  openai: ["./openai_sdk.mjs", "Chat"],
  "openai-responses": ["./openai_sdk.mjs", "Responses"],
  anthropic: ["./anthropic_sdk.mjs", "Messages"],
  "google-genai": ["./google_sdk.mjs", "Generate"],
  "ai-openai": ["./vercel_sdk.mjs", "OpenAIChat"],
  "ai-openai-responses": ["./vercel_sdk.mjs", "OpenAIResponses"],
  "ai-anthropic": ["./vercel_sdk.mjs", "Anthropic"],
  "ai-google": ["./vercel_sdk.mjs", "Google"],
};

const [file, name] = CLIENTS[process.argv[2]];
const client = new (await import(file))[name]();
// An SDK that prints must not break the protocol.
console.log = console.info = console.warn = console.error;

for await (const line of createInterface({ input: process.stdin })) {
  const { feature, model } = JSON.parse(line);
  let answer;
  try {
    answer = { usages: await client[feature](model) };
  } catch (error) {
    console.error(error);
    answer = { error: `${error.name}: ${error.message}` };
  }
  process.stdout.write(`${JSON.stringify(answer)}\n`);
}
