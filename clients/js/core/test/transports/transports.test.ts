/** Every transport against a real gateway that plays traces. */

import { WebSocket } from "ws";
import { afterAll, beforeAll, describe, expect, test } from "vitest";

import { attach, connect, type Connection, type Socket, type Stream, stream } from "../../src/index.js";
import { Gateway } from "../../../testing/gateway.js";

const TRACES = {
  short: [
    { event: "drafted", tail: "The quick brown" },
    { event: "verified", text: "The quick red", cause: "draft_rejected" },
    { event: "verified", text: " fox. 🦊" },
    { event: "finished", reason: "stop" },
  ],
};
const TEXT = "The quick red fox. 🦊";

let gateway: Gateway;
let connection: Connection;

beforeAll(async () => {
  gateway = await Gateway.start(TRACES);
  connection = connect(gateway.url, {
    socket: (url, protocols) => new WebSocket(url, protocols) as Socket,
  });
});

afterAll(async () => {
  connection.close();
  await gateway.stop();
});

describe.each([
  ["fetch", (request: { model: string; prompt: string }): Stream => stream(gateway.url, request)],
  ["a WebSocket", (request: { model: string; prompt: string }): Stream => connection.start(request)],
])("over %s", (_, start) => {
  test("a reader gets text, usage and a digest that matches", async () => {
    const reading = start({ model: "short", prompt: "hi" });
    const events = [];
    for await (const event of reading) events.push(event.type);
    expect(events.at(0)).toBe("open");
    expect(events.at(-1)).toBe("finish");
    expect(await reading.finished).toMatchObject({ text: TEXT, reason: "stop", digest: "match" });
    expect(reading.view).toMatchObject({ state: "finished", committed: TEXT, tail: "" });
  });

  test("a reader whose request is refused is told the code, the message and the field", async () => {
    const refused = start({ model: "short", prompt: "hi", temperature: 99 } as never);
    await expect(refused.finished).rejects.toMatchObject({
      name: "WetinkError",
      code: "invalid_value",
      message: expect.stringContaining("temperature") as string,
    });
  });
});

test("a reader of a stream that exists gets its committed text piece by piece", async () => {
  const one = stream(gateway.url, { model: "short", prompt: "hi" });
  await one.finished;
  const two = attach(gateway.url, one.id ?? "", { policy: { kind: "chunk", unit: "word" } });
  let text = "";
  for await (const piece of two.committed()) text += piece;
  expect(text).toBe(TEXT);
});
