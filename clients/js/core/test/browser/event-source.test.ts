/** A plain `EventSource`, as in any page, in a real browser against a real gateway. */

import type { Browser } from "playwright-core";
import { afterAll, beforeAll, expect, test } from "vitest";

import { decodeEvent, Receiver, type ServerEvent } from "../../src/protocol/index.js";
import { launch } from "../../../testing/browser.js";
import { CuttingProxy, type Request } from "../../../testing/cutting-proxy.js";
import { Gateway } from "../../../testing/gateway.js";

const TRACES = {
  long: [
    { event: "verified", text: "Hello" },
    { event: "verified", text: " world" },
    { event: "finished", reason: "length" },
  ],
  failing: [
    { event: "verified", text: "Hello" },
    { event: "failed", code: "engine_failed", message: "the ink is gone" },
  ],
};

let gateway: Gateway;
let browser: Browser;

beforeAll(async () => {
  [gateway, browser] = await Promise.all([
    Gateway.start(TRACES),
    launch(),
  ]);
});

afterAll(async () => {
  await Promise.all([gateway.stop(), browser.close()]);
});

/** Of the page: tells the proxy what has arrived. */
declare function heard(messages: number): Promise<void>;

interface Seen {
  /** `data` of each `message`, in order. */
  readonly messages: string[];
  /** Events called `open` and `error` that carried data: the server's, taken for the browser's. */
  readonly mistaken: number;
}

/** Opens an EventSource in a page and waits until the browser has given up on it by itself. */
async function readInBrowser(
  model: string,
  cutBefore: string | null,
): Promise<{ events: ServerEvent[]; seen: Seen; requests: readonly Request[] }> {
  const path = await gateway.generate(model);
  const proxy = new CuttingProxy(gateway.url, cutBefore);
  const page = await browser.newPage();
  try {
    await page.goto(await proxy.listen());
    await page.exposeFunction("heard", (messages: number) => proxy.heard(messages));
    const seen = await page.evaluate(
      (url) =>
        new Promise<Seen>((resolve) => {
          const messages: string[] = [];
          let mistaken = 0;
          const source = new EventSource(url);
          source.addEventListener("message", ({ data }: MessageEvent<string>) => {
            messages.push(data);
            void heard(messages.length);
          });
          const own = (event: Event): void => {
            if ("data" in event) mistaken += 1;
            if (source.readyState === EventSource.CLOSED) resolve({ messages, mistaken });
          };
          source.addEventListener("open", own);
          source.addEventListener("error", own);
        }),
      `${path}?policy=hold&offsets=utf-16`,
    );
    const events = seen.messages.map((data) => decodeEvent(data)).filter((event) => event !== null);
    return { events, seen, requests: proxy.requests };
  } finally {
    await page.close();
    await proxy.close();
  }
}

/** What a receiver makes of them that is told of every new attachment. */
function receiverOf(events: readonly ServerEvent[]): Receiver {
  const receiver = new Receiver({ unit: "utf-16" });
  for (const event of events) {
    if (event.type === "open") receiver.interrupted();
    receiver.receive(event);
  }
  return receiver;
}

test("a browser that is cut off before finish gets it, then 204, and stops", async () => {
  const { events, seen, requests } = await readInBrowser("long", '"type":"finish"');
  expect(seen.mistaken).toBe(0);
  expect(events.filter(({ type }) => type === "finish")).toHaveLength(1);
  const receiver = receiverOf(events);
  expect([receiver.state, receiver.committed]).toEqual(["finished", "Hello world"]);
  expect(receiver.finish?.reason).toBe("length");
  const cursor = receiver.cursor?.replace(".finish", "");
  expect(requests).toEqual([
    { lastEventId: null, status: 200 },
    { lastEventId: cursor, status: 200 },
    { lastEventId: receiver.cursor, status: 204 },
  ]);
});

test("a browser is told once that a stream has failed, then refused, and stops", async () => {
  const { events, seen, requests } = await readInBrowser("failing", null);
  expect(seen.mistaken).toBe(0);
  expect(events.map(({ type }) => type).at(-1)).toBe("error");
  expect(events.filter(({ type }) => type === "error")).toHaveLength(1);
  const receiver = receiverOf(events);
  expect([receiver.state, receiver.committed]).toEqual(["failed", "Hello"]);
  expect(receiver.failure).toMatchObject({ code: "engine_failed", ended: true });
  expect(requests).toEqual([
    { lastEventId: null, status: 200 },
    { lastEventId: `${receiver.cursor}.error`, status: 500 },
  ]);
});

test("a browser that is cut off before the error of a failed stream gets it", async () => {
  const { events, requests } = await readInBrowser("failing", '"type":"error"');
  expect(receiverOf(events).failure).toMatchObject({ code: "engine_failed", ended: true });
  expect(requests.map(({ status }) => status)).toEqual([200, 200, 500]);
});
