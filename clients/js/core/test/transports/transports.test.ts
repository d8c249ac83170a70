/** Every transport against a real gateway that plays traces, also through a network that fails. */

import { WebSocket } from "ws";
import { afterAll, beforeAll, describe, expect, test } from "vitest";

import {
  attach,
  connect,
  type Connection,
  type GenerationRequest,
  type Policy,
  type Retry,
  type ServerEvent,
  type Socket,
  type Stream,
  stream,
} from "../../src/index.js";
import { ByteProxy } from "../../../testing/byte-proxy.js";
import { Gateway } from "../../../testing/gateway.js";
import { longTrace, MIXED, MIXED_TEXT } from "../../../testing/traces.js";

const LONG = longTrace(2500);
const SLOW = longTrace(40, 15);
const ENDLESS = longTrace(5000, 10);
const TRACES = { mixed: MIXED, long: LONG.trace, slow: SLOW.trace, endless: ENDLESS.trace };
const FAST: Retry = { firstMs: 1, longestMs: 1 };
/** More than an answer to any of the traces' requests has, headers included. */
const BYTES = 2600;

let gateway: Gateway;

beforeAll(async () => {
  gateway = await Gateway.start(TRACES);
});

afterAll(() => gateway.stop());

function connectTo(url: string): Connection {
  return connect(url, {
    retry: FAST,
    socket: (to, protocols) => new WebSocket(to, protocols) as Socket,
  });
}

interface Way {
  readonly start: (request: GenerationRequest) => Stream;
  readonly attach: (id: string) => Stream;
  readonly close: () => void;
}

const WAYS: Readonly<Record<string, (url: string) => Way>> = {
  fetch: (url) => ({
    start: (request) => stream(url, request, { retry: FAST }),
    attach: (id) => attach(url, id, { retry: FAST }),
    close: () => {},
  }),
  "a WebSocket": (url) => {
    const connection = connectTo(url);
    return {
      start: (request) => connection.start(request),
      attach: (id) => connection.attach(id),
      close: () => connection.close(),
    };
  },
};

/** Text from the events alone, as one who iterates sees it: committed and tail. */
async function fromEvents(reading: Stream): Promise<{ text: string; events: ServerEvent[] }> {
  const events: ServerEvent[] = [];
  let text = "";
  for await (const event of reading) {
    events.push(event);
    if (event.type === "open") expect(event.at).toBe(text.length);
    if (event.type === "commit") {
      expect(event.at).toBe(text.length);
      text += event.text;
    }
  }
  return { text, events };
}

describe.each(Object.entries(WAYS))("over %s", (_, open) => {
  let way: Way;
  beforeAll(() => {
    way = open(gateway.url);
  });
  afterAll(() => way.close());

  test.each(["utf-16", "codepoint", "utf-8"] as const)("a reader gets text in %s, usage and a digest", async (offsets) => {
    const reading = way.start({ model: "mixed", prompt: "hi", policy: "retract", offsets });
    const types: string[] = [];
    for await (const { type } of reading) types.push(type);
    expect([types.at(0), types.at(-1)]).toEqual(["open", "finish"]);
    expect(await reading.finished).toMatchObject({
      text: MIXED_TEXT,
      reason: "stop",
      digest: "match",
      usage: { prompt_tokens: 1 },
    });
    expect(reading.view).toMatchObject({ state: "finished", committed: MIXED_TEXT, tail: "" });
  });

  test("a reader whose deliveries are shaped gets the same text", async () => {
    const policy: Policy = { kind: "retract", shape: { pad: 1024, tick_ms: 10 } };
    const reading = way.start({ model: "mixed", prompt: "hi", policy });
    const { text, events } = await fromEvents(reading);
    expect(text).toBe(MIXED_TEXT);
    expect(events[0]).toMatchObject({ type: "open", policy });
  });

  test("a reader whose request is refused is told the code, the message and the field", async () => {
    const refused = way.start({ model: "mixed", prompt: "hi", temperature: 99 });
    await expect(refused.finished).rejects.toMatchObject({
      name: "WetinkError",
      code: "invalid_value",
      message: expect.stringContaining("temperature") as string,
      retryable: false,
    });
    const error = await refused.finished.catch((thrown: unknown) => thrown);
    expect((error as { field: string }).field).toMatch(/temperature$/);
  });

  test("a second reader gets the same text under another policy", async () => {
    const first = way.start({ model: "mixed", prompt: "hi" });
    await first.finished;
    const second = way.attach(first.id ?? "");
    let text = "";
    for await (const piece of second.committed()) text += piece;
    expect(text).toBe(MIXED_TEXT);
  });

  test("a reader who cancels keeps what was committed", async () => {
    const reading = way.start({ model: "endless", prompt: "hi" });
    for await (const { type } of reading) if (type === "commit") break;
    await reading.cancel();
    const { reason, text, digest } = await reading.finished;
    expect([reason, digest]).toEqual(["cancelled", "match"]);
    expect(ENDLESS.text.startsWith(text) && text.length < ENDLESS.text.length).toBe(true);
  });

  test("a reader who cuts its connection goes on where it was", async () => {
    const reading = way.start({ model: "slow", prompt: "hi", policy: "retract" });
    let cuts = 0;
    reading.subscribe(({ committed }) => {
      if (committed.length < cuts * 50) return;
      cuts += 1;
      reading.reconnect();
    });
    const { text, events } = await fromEvents(reading);
    expect([text, cuts > 0]).toEqual([SLOW.text, true]);
    expect(events.filter(({ type }) => type === "open").length).toBeGreaterThan(1);
  });

  test("a reader far behind holds the stream up, and gets all the text in the end", async () => {
    const reading = way.start({ model: "long", prompt: "hi", policy: "retract" });
    const iterator = reading[Symbol.asyncIterator]();
    await iterator.next();
    const other = way.start({ model: "long", prompt: "hi", policy: "retract" });
    expect((await other.finished).text).toBe(LONG.text);
    // As much text as the most events that may wait can hold, and what came with the last of them.
    expect(reading.view.committed.length).toBeLessThan(LONG.text.length);
    let text = "";
    for (let item = await iterator.next(); !item.done; item = await iterator.next()) {
      if (item.value.type === "commit") text += item.value.text;
    }
    expect(text).toBe(LONG.text);
    expect(await reading.finished).toMatchObject({ digest: "match" });
  });

  test("a reader ends with the whole text through a network that is cut anywhere", async () => {
    for (let at = 0; at < BYTES; at += 52) {
      const together = [0, 13, 26, 39].map(async (more) => {
        const proxy = new ByteProxy(gateway.url, [at + more, (at + more) * 2, 700]);
        const through = open(await proxy.listen());
        const reading = through.start({ model: "mixed", prompt: "hi", policy: "retract" });
        const { text } = await fromEvents(reading);
        expect([text, (await reading.finished).digest]).toEqual([MIXED_TEXT, "match"]);
        through.close();
        await proxy.close();
      });
      await Promise.all(together);
    }
  });

  test("a reader of a gateway that was restarted sees the same text once", async () => {
    const dying = await Gateway.start(TRACES);
    const proxy = new ByteProxy(dying.url);
    const through = open(await proxy.listen());
    const reading = through.start({ model: "slow", prompt: "hi", policy: "retract", seed: 7 });
    const read = fromEvents(reading);
    await new Promise<void>((resolve) => {
      reading.subscribe(({ committed }) => committed.length > 100 && resolve());
    });
    proxy.target = gateway.url;
    await dying.stop("SIGKILL");
    const { text, events } = await read;
    expect([text, (await reading.finished).digest]).toEqual([SLOW.text, "match"]);
    const epochs = new Set(events.flatMap((event) => (event.type === "open" ? [event.epoch] : [])));
    expect(epochs.size).toBe(2);
    through.close();
    await proxy.close();
  });
});

test("a connection carries many streams and tells its state", async () => {
  const connection = connectTo(gateway.url);
  const states: string[] = [];
  connection.subscribe((state) => states.push(state));
  const readings = Array.from({ length: 20 }, () => connection.start({ model: "slow", prompt: "hi" }));
  await new Promise<void>((resolve) => {
    readings[0]?.subscribe(({ committed }) => committed !== "" && resolve());
  });
  connection.reconnect();
  for (const reading of readings) expect((await reading.finished).text).toBe(SLOW.text);
  expect(states).toEqual(["connecting", "open", "waiting", "connecting", "open"]);
  connection.close();
  const late = connection.start({ model: "slow", prompt: "hi" });
  await expect(late.finished).rejects.toMatchObject({ code: "closed" });
});

test("an ack is sent over a WebSocket and cannot be over HTTP", async () => {
  const connection = connectTo(gateway.url);
  const [one, other] = [
    connection.start({ model: "slow", prompt: "hi" }),
    stream(gateway.url, { model: "slow", prompt: "hi" }),
  ];
  for await (const { type } of one) if (type === "commit") break;
  expect([one.ack(1), other.ack(1)]).toEqual([true, false]);
  await Promise.all([one.finished, other.finished]);
  connection.close();
});
