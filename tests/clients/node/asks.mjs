// What every Node client asks for, and what it must be told: the same as python/asks.py.

import { z } from "zod";

export const ORIGIN = process.env.MATRIX_ORIGIN;
export const KEY = process.env.MATRIX_KEY;

export const SYSTEM = "You are brief.";
export const PROMPT = "Say something, please.";
const WORDS = 16;
const CALLS = 2;

export const TOOL = "weather";
export const TOOL_DOES = "Tells the weather of a city.";
export const TOOL_SCHEMA = {
  type: "object",
  properties: { city: { type: "string" }, days: { type: "integer" } },
  required: ["city", "days"],
  additionalProperties: false,
};
export const TOOL_RESULT = "sunny, 21 degrees";

// One red pixel.
export const PNG_BASE64 =
  "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg==";
export const PNG_URL = `data:image/png;base64,${PNG_BASE64}`;

export const City = z.object({
  name: z.string(),
  population: z.number().int(),
  capital: z.boolean(),
  districts: z.array(z.string()),
});

// Tokens as an SDK showed them; `input` with what was cached, `output` with what was thought.
export function usage(input, output, cached = null, reasoning = null) {
  return { input, output, cached, reasoning };
}

export function expect(held, what) {
  if (!held) throw new Error(typeof what === "string" ? what : JSON.stringify(what));
}

export function expectWords(text) {
  expect((text ?? "").split(/\s+/).filter(Boolean).length === WORDS, `${WORDS} words: ${text}`);
}

export function expectStream(pieces) {
  const told = pieces.filter(Boolean);
  expect(told.length > 1, `more than one piece: ${JSON.stringify(told)}`);
  expectWords(told.join(""));
}

// Names and arguments of the tool's calls.
export function expectCalls(calls) {
  expect(calls.length === CALLS, `${CALLS} calls: ${JSON.stringify(calls)}`);
  for (const [name, given] of calls) {
    expect(name === TOOL, `a call of ${TOOL}: ${name}`);
    const fits = typeof given.city === "string" && Number.isInteger(given.days);
    expect(fits, `arguments of the schema: ${JSON.stringify(given)}`);
  }
}

export function expectCity(city) {
  City.parse(city);
}
