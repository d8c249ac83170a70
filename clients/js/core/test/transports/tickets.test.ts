/** Tickets: asked before every connection, for one that was lost as well. */

import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { WebSocket } from "ws";

import { connect, eventSource, type Socket } from "../../src/index.js";
import { Gateway } from "../../../testing/gateway.js";
import { MIXED, MIXED_TEXT } from "../../../testing/traces.js";
import { ScriptedServer } from "../protocol/scripted-server.js";

const RETRY = { firstMs: 0, longestMs: 0 };

function tickets(): () => Promise<string> {
  let asked = 0;
  return () => {
    asked += 1;
    return Promise.resolve(`ticket ${asked}`);
  };
}

/** The data of each event in `frames`. */
function messages(frames: string): string[] {
  return [...frames.matchAll(/^data: (.*)$/gm)].map(([, data]) => data ?? "");
}

/** As a browser's, but what it hears is said by `script`: one list per connection; null: refused. */
function scriptedSource(script: readonly (readonly string[] | null)[]): { Source: typeof EventSource; urls: URL[] } {
  const urls: URL[] = [];
  class Source extends EventTarget {
    static readonly CLOSED = 2;
    readonly CLOSED = 2;
    readyState = 0;

    constructor(url: URL) {
      super();
      const said = script[urls.length];
      urls.push(url);
      queueMicrotask(() => {
        for (const data of said ?? []) this.dispatchEvent(new MessageEvent("message", { data }));
        if (said === null) this.close();
        this.dispatchEvent(new Event("error"));
      });
    }

    close(): void {
      this.readyState = this.CLOSED;
    }
  }
  return { Source: Source as unknown as typeof EventSource, urls };
}

test("an EventSource comes back with a new ticket and the cursor", async () => {
  const server = new ScriptedServer(["Hello"], "utf-16");
  const beginning = messages(server.attach(null) + server.act({ do: "verify", n: 2 }));
  const rest = messages(server.attach("7.0.2") + server.finish());
  const { Source, urls } = scriptedSource([beginning, rest]);
  const reading = eventSource("http://gateway.test/v1/streams/s/events?policy=hold", {
    EventSource: Source,
    ticket: tickets(),
    retry: RETRY,
  });
  expect(await reading.finished).toMatchObject({ text: "Hello", digest: "match" });
  expect(urls.map(({ searchParams }) => Object.fromEntries(searchParams))).toEqual([
    { policy: "hold", offsets: "utf-16", ticket: "ticket 1" },
    { policy: "hold", offsets: "utf-16", ticket: "ticket 2", cursor: "7.0.2" },
  ]);
});

test("an EventSource that was refused says why", async () => {
  const { Source } = scriptedSource([null]);
  const asked: string[] = [];
  const reading = eventSource("http://gateway.test/v1/streams/s/events", {
    EventSource: Source,
    retry: RETRY,
    fetch: (input) => {
      asked.push(String(input));
      const error = { code: "unknown_stream", message: "no such stream", param: "stream" };
      return Promise.resolve(Response.json({ error }, { status: 404 }));
    },
  });
  await expect(reading.finished).rejects.toMatchObject({ code: "unknown_stream", status: 404, field: "stream" });
  expect(asked).toEqual(["http://gateway.test/v1/streams/s/events?offsets=utf-16"]);
});

test("a WebSocket comes back with a new ticket, until it is given up", async () => {
  const urls: string[] = [];
  const connection = connect("https://gateway.test/wetink/", {
    ticket: tickets(),
    retry: { ...RETRY, attempts: 1 },
    socket: (url) => {
      urls.push(url);
      const socket = Object.assign(new EventTarget(), { send: () => {}, close: () => {} });
      queueMicrotask(() => socket.dispatchEvent(new Event("close")));
      return socket as unknown as Socket;
    },
  });
  const reading = connection.start({ prompt: "hi" });
  await expect(reading.finished).rejects.toMatchObject({ code: "connection_lost" });
  expect(urls).toEqual([
    "wss://gateway.test/wetink/v1/ws?ticket=ticket+1",
    "wss://gateway.test/wetink/v1/ws?ticket=ticket+2",
  ]);
  expect(connection.state).toBe("idle");
  connection.close();
});

describe("a gateway that asks for a key", () => {
  let gateway: Gateway;
  let key: string;

  beforeAll(async () => {
    gateway = await Gateway.start({ mixed: MIXED }, { keyed: true });
    key = gateway.key ?? "";
  });
  afterAll(() => gateway.stop());

  const options = { retry: RETRY, socket: (url: string, protocols: string[]) => new WebSocket(url, protocols) as Socket };

  test("lets whoever has it open a WebSocket, again and again", async () => {
    const connection = connect(gateway.url, { key, ...options });
    const first = connection.start({ model: "mixed", prompt: "hi" });
    expect(await first.finished).toMatchObject({ text: MIXED_TEXT, digest: "match" });
    connection.reconnect();
    const second = connection.start({ model: "mixed", prompt: "hi" });
    expect(await second.finished).toMatchObject({ text: MIXED_TEXT, digest: "match" });
    connection.close();
  });

  test("refuses a wrong key at once", async () => {
    const connection = connect(gateway.url, { key: "wetink_nobody_nothing", ...options });
    const reading = connection.start({ model: "mixed", prompt: "hi" });
    await expect(reading.finished).rejects.toMatchObject({ code: "unauthorized", status: 401, retryable: false });
    expect(connection.state).toBe("idle");
    connection.close();
  });
});
