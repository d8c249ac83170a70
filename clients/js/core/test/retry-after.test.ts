/** A server that says when to come back is left alone until then (SPEC 4.8, 7.3.4). */

import { expect, test } from "vitest";

import { attach, connect, type Socket } from "../src/index.js";
import { ScriptedServer } from "./protocol/scripted-server.js";

const ASKED_MS = 120;
/** A timer may fire so much early. */
const CLOCK_MS = 2;
/** What comes without being asked to wait comes at once. */
const RETRY = { firstMs: 0, longestMs: 60_000 };
const BUSY = { type: "error", code: "engine_unavailable", message: "later", retryable: true, at: 0, retry_after_s: ASKED_MS / 1000 };

function exchange(): { beginning: string; rest: () => string } {
  const server = new ScriptedServer(["Hello"], "utf-16");
  const beginning = server.attach(null) + server.act({ do: "verify", n: 2 });
  return { beginning, rest: () => server.attach("7.0.2") + server.finish() };
}

function waits(times: readonly number[]): number[] {
  return times.slice(1).map((time, index) => time - (times[index] ?? 0) + CLOCK_MS);
}

test("over HTTP an error's wait is kept before the stream is asked for again", async () => {
  const { beginning, rest } = exchange();
  const failed = `data: ${JSON.stringify({ ...BUSY, at: 2 })}\n\n`;
  const times: number[] = [];
  const answer: typeof fetch = () => {
    times.push(performance.now());
    const text = times.length === 1 ? beginning + failed : rest();
    return Promise.resolve(new Response(text, { headers: { "Content-Type": "text/event-stream" } }));
  };
  const reading = attach("http://gateway.test", "s", { fetch: answer, retry: RETRY });
  expect(await reading.finished).toMatchObject({ text: "Hello", digest: "match" });
  expect(times).toHaveLength(2);
  expect(waits(times)[0]).toBeGreaterThanOrEqual(ASKED_MS);
});

/** Answers each message with the next of `answers`, to which it adds the message's `ref`. */
function scriptedSocket(answers: readonly ((ref: string) => object[])[], times: number[]): Socket {
  const target = new EventTarget();
  queueMicrotask(() => target.dispatchEvent(new Event("open")));
  return {
    addEventListener: target.addEventListener.bind(target) as Socket["addEventListener"],
    close: () => {},
    send(message) {
      const { type, ref } = JSON.parse(message) as { type: string; ref: string };
      if (type !== "attach") return;
      const answer = answers[times.length]?.(ref) ?? [];
      times.push(performance.now());
      for (const event of answer) {
        queueMicrotask(() => target.dispatchEvent(new MessageEvent("message", { data: JSON.stringify(event) })));
      }
    },
  };
}

/** The events in `frames`, as a WebSocket carries them. */
function said(frames: string, ref: string): object[] {
  return [...frames.matchAll(/^data: (.*)$/gm)].map(([, data]) => {
    const event = JSON.parse(data ?? "") as { type: string };
    return Object.assign(event, event.type === "open" ? { ref } : { stream: "s" });
  });
}

test("over a WebSocket the wait of an ended attachment is kept, and that of a refused one", async () => {
  const { beginning, rest } = exchange();
  const times: number[] = [];
  const answers = [
    (ref: string) => [...said(beginning, ref), { ...BUSY, stream: "s", at: 2 }],
    (ref: string) => [{ ...BUSY, ref }],
    (ref: string) => said(rest(), ref),
  ];
  const connection = connect("http://gateway.test", { retry: RETRY, socket: () => scriptedSocket(answers, times) });
  const reading = connection.attach("s");
  expect(await reading.finished).toMatchObject({ text: "Hello", digest: "match" });
  expect(times).toHaveLength(3);
  for (const wait of waits(times)) expect(wait).toBeGreaterThanOrEqual(ASKED_MS);
  connection.close();
});

test("a ticket office's wait is kept before a connection asks for another ticket", async () => {
  const times: number[] = [];
  const busy: typeof fetch = () => {
    times.push(performance.now());
    const error = { code: "overloaded", message: "later", param: null };
    const headers = { "Retry-After": "1" };
    return Promise.resolve(Response.json({ error }, { status: 429, headers }));
  };
  const retry = { attempts: 1, firstMs: 0, longestMs: ASKED_MS };
  const connection = connect("http://gateway.test", { key: "k", fetch: busy, retry });
  await expect(connection.attach("s").finished).rejects.toMatchObject({ code: "connection_lost" });
  expect(times).toHaveLength(2);
  expect(waits(times)[0]).toBeGreaterThanOrEqual(ASKED_MS);
});
