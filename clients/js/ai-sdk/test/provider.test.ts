/** The AI SDK itself, over a real gateway that plays traces. */

import { generateText, jsonSchema, streamText, tool } from "ai";
import { afterAll, beforeAll, describe, expect, test } from "vitest";

import { createWetink, type TentativePart } from "../src/index.js";
import { Gateway } from "../../testing/gateway.js";
import { longTrace, MIXED, MIXED_TEXT } from "../../testing/traces.js";

const SLOW = longTrace(40, 10);
// Warnings are checked where they are expected; printed they only make noise.
globalThis.AI_SDK_LOG_WARNINGS = false;

let gateway: Gateway;

beforeAll(async () => {
  gateway = await Gateway.start({ mixed: MIXED, slow: SLOW.trace });
});

afterAll(() => gateway.stop());

function wetink(model: string): ReturnType<ReturnType<typeof createWetink>> {
  return createWetink({ url: gateway.url })(model);
}

describe("a program that uses the AI SDK", () => {
  test("generates text", async () => {
    const { text, usage, finishReason } = await generateText({
      model: wetink("mixed"),
      system: "Be brief.",
      messages: [
        { role: "user", content: [{ type: "text", text: "hi" }] },
        { role: "assistant", content: "Hello." },
        { role: "user", content: "and?" },
      ],
    });
    expect([text, finishReason]).toEqual([MIXED_TEXT, "stop"]);
    expect(usage.inputTokens).toBe(5);
  });

  test("streams committed text alone, in pieces", async () => {
    const { textStream, finishReason, providerMetadata } = streamText({ model: wetink("slow"), prompt: "hi" });
    const pieces: string[] = [];
    for await (const piece of textStream) pieces.push(piece);
    expect([pieces.join(""), pieces.length > 1]).toEqual([SLOW.text, true]);
    expect([await finishReason, (await providerMetadata)?.["wetink"]]).toMatchObject([
      "stop",
      { digest: expect.stringMatching(/^[0-9a-f]{64}$/) as string, stats: { retractions: 0 } },
    ]);
  });

  test("gets tentative text as data parts where it asks for raw chunks", async () => {
    const { fullStream } = streamText({ model: wetink("slow"), prompt: "hi", includeRawChunks: true });
    const tails: TentativePart[] = [];
    let text = "";
    for await (const part of fullStream) {
      if (part.type === "raw") tails.push(part.rawValue as TentativePart);
      if (part.type === "text-delta") text += part.text;
    }
    expect(text).toBe(SLOW.text);
    expect(tails.some(({ data }) => data.tail.startsWith("wrong"))).toBe(true);
    expect(tails.at(-1)?.data.tail).toBe("");
  });

  test("chooses fields of the gateway's own, and is warned of what it asked for in vain", async () => {
    const { text, warnings } = await generateText({
      model: wetink("mixed"),
      prompt: "hi",
      providerOptions: { wetink: { policy: { kind: "chunk", unit: "word" } } },
      tools: { ink: tool({ inputSchema: jsonSchema({ type: "object" }) }) },
    });
    expect(text).toBe(MIXED_TEXT);
    expect(warnings).toEqual([{ type: "unsupported", feature: "tools" }]);
  });

  test("gets a refusal as the SDK's own error, with code and field", async () => {
    const refused = generateText({ model: wetink("mixed"), prompt: "hi", temperature: 99, maxRetries: 0 });
    await expect(refused).rejects.toMatchObject({
      name: "AI_APICallError",
      statusCode: 400,
      isRetryable: false,
      data: { code: "invalid_value", field: "temperature" },
    });
  });

  test("aborts", async () => {
    const aborting = new AbortController();
    const { textStream } = streamText({ model: wetink("slow"), prompt: "hi", abortSignal: aborting.signal });
    let text = "";
    for await (const piece of textStream) {
      text += piece;
      aborting.abort();
    }
    expect(text.length).toBeLessThan(SLOW.text.length);
  });
});
