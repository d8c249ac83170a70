/** What a `Stream` promises, whatever happens to its connections. */

import { expect, test } from "vitest";

import { attach, stream, WetinkError } from "../src/index.js";
import type { OffsetUnit } from "../src/protocol/units.js";
import { ScriptedServer } from "./protocol/scripted-server.js";
import { scriptedFetch } from "./scripted-fetch.js";

const TRUTH = ["Ink 🖋️ حبر 墨は湿る.", "👩‍👩‍👧‍👦 done."];
const TEXT = TRUTH.join("");
const AT_ONCE = { firstMs: 0, longestMs: 0 };
const REQUEST = { prompt: "hi" };
const ADDRESS = "http://gateway.test";

function script(server: ScriptedServer): string {
  return [
    server.act({ do: "verify", n: 4 }),
    server.act({ do: "foresee", n: 6 }),
    server.act({ do: "draft", text: "wrong 🖋️" }),
    server.act({ do: "verify", n: 3 }),
    server.act({ do: "heartbeat" }),
    server.act({ do: "retract", n: 1 }),
    server.act({ do: "verify", n: 30 }),
    server.act({ do: "verify", n: 1 }),
    server.act({ do: "draft", text: "👩‍👩‍👧" }),
    server.act({ do: "verify", n: 5 }),
  ].join("");
}

function bytesOfExchange(unit: OffsetUnit): number {
  const server = new ScriptedServer(TRUTH, unit);
  return new TextEncoder().encode(server.attach(null) + script(server) + server.finish()).length;
}

/** Reads with cuts, watching that no committed text ever changes. */
async function readCut(unit: OffsetUnit, cuts: readonly number[]): Promise<void> {
  const reading = stream(
    ADDRESS,
    { ...REQUEST, offsets: unit },
    { fetch: scriptedFetch(new ScriptedServer(TRUTH, unit), script, cuts), retry: AT_ONCE },
  );
  let committed = "";
  reading.subscribe(({ parts }) => {
    const now = parts.map((part) => part.committed).join("");
    expect(now.startsWith(committed)).toBe(true);
    committed = now;
  });
  let pieces = "";
  for await (const piece of reading.committed()) pieces += piece;
  expect(await reading.finished).toMatchObject({ text: TEXT, reason: "stop", digest: "match" });
  expect([committed, pieces]).toEqual([TEXT, TEXT]);
  expect(reading.view).toMatchObject({ state: "finished", tail: "", error: null });
}

test.each([
  ["utf-16", 1],
  ["codepoint", 5],
  ["utf-8", 7],
] as const)("a stream in %s ends whole wherever the exchange is cut", async (unit, step) => {
  const length = bytesOfExchange(unit);
  for (let at = 0; at < length; at += step) await readCut(unit, [at, (at * 7) % length]);
});

/** Answers each request with the next of these. */
function answers(...responses: (() => Response)[]): { fetch: typeof fetch; requests: string[] } {
  const requests: string[] = [];
  const answer: typeof fetch = (input, init) => {
    requests.push(`${init?.method ?? "GET"} ${new URL(String(input)).pathname}`);
    const next = responses[Math.min(requests.length, responses.length) - 1];
    return next === undefined ? Promise.reject(new TypeError("fetch failed")) : Promise.resolve(next());
  };
  return { fetch: answer, requests };
}

function refused(status: number, code: string, headers: Record<string, string> = {}): Response {
  const error = { code, message: `this is ${code}`, param: "prompt" };
  return Response.json({ error }, { status, headers });
}

function whole(): Response {
  const server = new ScriptedServer(["Hello"], "utf-16");
  return events(server.attach(null) + server.finish());
}

function events(text: string): Response {
  return new Response(text, { headers: { "Content-Type": "text/event-stream" } });
}

test("a refused request is told at once, with code, message and field, and asked once", async () => {
  const { fetch, requests } = answers(() => refused(429, "too_many_streams", { "Retry-After": "3" }));
  const reading = stream(ADDRESS, REQUEST, { fetch, retry: AT_ONCE });
  const error: unknown = await reading.finished.catch((thrown: unknown) => thrown);
  expect(error).toBeInstanceOf(WetinkError);
  expect({ ...(error as object) }).toMatchObject({
    code: "too_many_streams",
    field: "prompt",
    status: 429,
    retryable: true,
    retryAfterMs: 3000,
  });
  expect(requests).toEqual(["POST /v1/streams"]);
  expect(reading.view).toMatchObject({ state: "failed", error });
  await expect(reading[Symbol.asyncIterator]().next()).rejects.toBe(error);
});

test.each([
  ["a page of a proxy", () => new Response("<h1>Bad gateway</h1>", { status: 502 }), 502],
  ["a page in place of events", () => new Response("<h1>Log in</h1>"), 200],
])("%s is a bad response", async (_, response, status) => {
  const { fetch } = answers(response);
  const reading = stream(ADDRESS, REQUEST, { fetch, retry: AT_ONCE });
  await expect(reading.finished).rejects.toMatchObject({ code: "bad_response", status });
});

test("a stream that cannot be reached is given up after as many attempts as allowed", async () => {
  const { fetch, requests } = answers();
  const reading = stream(ADDRESS, REQUEST, { fetch, retry: { ...AT_ONCE, attempts: 3 } });
  await expect(reading.finished).rejects.toMatchObject({ code: "connection_lost", retryable: true });
  expect(requests).toHaveLength(4);
});

test("a gap, and a server that is starting, are resumed", async () => {
  const server = new ScriptedServer(["Hello"], "utf-16");
  const beginning = server.attach(null) + server.act({ do: "verify", n: 2 });
  server.act({ do: "verify", n: 1 }); // lost on the way
  const gap = beginning + server.act({ do: "verify", n: 1 });
  const { fetch, requests } = answers(
    () => events(gap),
    () => refused(503, "engine_unavailable"),
    () => events(server.attach("7.0.2") + server.finish()),
  );
  const reading = stream(ADDRESS, REQUEST, { fetch, retry: AT_ONCE });
  expect(await reading.finished).toMatchObject({ text: "Hello", digest: "match" });
  expect(requests).toEqual(["POST /v1/streams", "GET /v1/streams/s/events", "GET /v1/streams/s/events"]);
});

test("a text whose digest does not match is a failure, for every reader", async () => {
  const { fetch } = answers(() => {
    const server = new ScriptedServer(["Hello"], "utf-16");
    return events((server.attach(null) + server.finish()).replace("Hello", "Jello"));
  });
  const reading = stream(ADDRESS, REQUEST, { fetch, retry: AT_ONCE });
  const drained = (async () => {
    for await (const event of reading) void event;
  })();
  await expect(drained).rejects.toMatchObject({ code: "protocol_violation" });
  await expect(reading.finished).rejects.toMatchObject({ code: "protocol_violation" });
  expect(reading.view.state).toBe("failed");
});

test("what the protocol forbids fails the stream, and is not asked for again", async () => {
  const { fetch, requests } = answers(() => events('data: {"type":"finish"}\n\n'));
  const reading = stream(ADDRESS, REQUEST, { fetch, retry: AT_ONCE });
  await expect(reading.finished).rejects.toMatchObject({ code: "protocol_violation", retryable: false });
  expect(requests).toHaveLength(1);
});

test("a resumed stream whose end was told already is complete", async () => {
  const { fetch } = answers(() => new Response(null, { status: 204 }));
  const reading = attach(ADDRESS, "s", { fetch, retry: AT_ONCE, cursor: "7.0.5.finish", held: "Hello" });
  const states: string[] = [];
  await new Promise<void>((resolve) => {
    reading.subscribe(({ state }) => {
      states.push(state);
      if (state === "finished") resolve();
    });
  });
  expect(states).toEqual(["connecting", "finished"]);
  expect(reading.view.committed).toBe("Hello");
});

test("a caller who aborts ends a stream that waits, and cancels what it had started", async () => {
  const aborting = new AbortController();
  const server = new ScriptedServer(["Hello"], "utf-16");
  const { fetch, requests } = answers(
    () =>
      new Response(
        new ReadableStream({
          start: (to) => to.enqueue(new TextEncoder().encode(server.attach(null))),
        }),
        { headers: { "Content-Type": "text/event-stream" } },
      ),
    () => new Response(null, { status: 204 }),
  );
  const reading = stream(ADDRESS, REQUEST, { fetch, signal: aborting.signal });
  for await (const { type } of reading) if (type === "open") break;
  aborting.abort(new Error("enough"));
  await expect(reading.finished).rejects.toMatchObject({ code: "aborted", cause: { message: "enough" } });
  expect(requests).toEqual(["POST /v1/streams", "DELETE /v1/streams/s"]);
});

test("a caller whose signal is aborted already asks for nothing", async () => {
  const { fetch, requests } = answers(whole);
  const reading = stream(ADDRESS, REQUEST, { fetch, signal: AbortSignal.abort() });
  await expect(reading.finished).rejects.toMatchObject({ code: "aborted" });
  expect(requests).toEqual([]);
});

test("a listener is told at once and until it leaves, and views are kept until they change", async () => {
  const { fetch } = answers(whole);
  const reading = stream(ADDRESS, REQUEST, { fetch });
  expect(reading.getSnapshot()).toBe(reading.getSnapshot());
  const [all, few]: string[][] = [[], []];
  reading.subscribe(({ state }) => all?.push(state));
  reading.subscribe(({ state }) => few?.push(state))();
  await reading.finished;
  expect(few).toEqual(["connecting"]);
  expect(all?.at(-1)).toBe("finished");
});

test("one who iterates after the end gets nothing more", async () => {
  const { fetch } = answers(whole);
  const reading = stream(ADDRESS, REQUEST, { fetch });
  await reading.finished;
  for await (const event of reading) expect.fail(event.type);
});

