/** The library and the embedded model, in this Node.js and in a real browser: `make test-heavy`. */

import type { Browser, Page } from "playwright-core";
import { WebSocket } from "ws";
import { afterAll, beforeAll, expect, test } from "vitest";

import { connect, type GenerationRequest, type Socket, stream } from "../core/src/index.js";
import { ByteProxy } from "../testing/byte-proxy.js";
import { launch, libraryPage } from "../testing/browser.js";
import { Gateway } from "../testing/gateway.js";

const ASKED = { prompt: "Rain falls on the", max_tokens: 48, temperature: 0.8, seed: 7 } as const;
// At a fixed length: on a busy machine the engine may find that guessing does not pay.
const REQUEST: GenerationRequest = { ...ASKED, policy: "retract", draft: { drafter: "head", length: 4 } };
/** So long every guess stands: a busy gateway merges one with a verdict that comes at once. */
const VERIFY_DELAY_MS = 100;
const RETRY = { firstMs: 1, longestMs: 20 };
/** Of each connection in turn, so many bytes arrive; of the first enough for a guess. */
const CUTS = [2500, 1200, 1800];

let gateway: Gateway;
let browser: Browser;
/** What the model says when nobody guesses. */
let truth: string;

beforeAll(async () => {
  [gateway, browser] = await Promise.all([Gateway.embedded(), launch()]);
  // The model may still be loading.
  const retry = { attempts: 400, firstMs: 300, longestMs: 600 };
  const plain = stream(gateway.url, { ...REQUEST, policy: "hold", draft: { length: 0 } }, { retry });
  truth = (await plain.finished).text;
  expect(truth.length).toBeGreaterThan(40);
  await fetch(`${gateway.url}/v1/demonstration`, {
    method: "PUT",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ verify_delay_ms: VERIFY_DELAY_MS }),
  });
});
afterAll(async () => {
  await Promise.all([gateway.stop(), browser.close()]);
});

const WAYS = {
  fetch: (url: string) => stream(url, REQUEST, { retry: RETRY }),
  "a WebSocket": (url: string) =>
    connect(url, { retry: RETRY, socket: (to, protocols) => new WebSocket(to, protocols) as Socket }).start(REQUEST),
};

test.each(Object.entries(WAYS))("a program reads what the model alone would have said, over %s that is cut", async (_, start) => {
  const proxy = new ByteProxy(gateway.url, CUTS);
  const reading = start(await proxy.listen());
  let [committed, tentative] = ["", 0];
  reading.subscribe((view) => {
    expect(view.committed.startsWith(committed)).toBe(true);
    committed = view.committed;
    tentative = Math.max(tentative, view.tail.length);
  });
  const { text, digest, usage } = await reading.finished;
  expect([text, digest]).toEqual([truth, "match"]);
  expect(usage.drafted_tokens).toBeGreaterThan(0);
  expect(tentative).toBeGreaterThan(0);
  expect(proxy.connections).toBeGreaterThan(1);
  await proxy.close();
});

/** What `bindView` shows in the end, and which committed nodes were touched on the way there. */
function shownIn(page: Page, way: "stream" | "connect"): Promise<{ text: string; touched: number }> {
  return page.evaluate(
    async ([how, request]) => {
      const main = document.querySelector("main") as Element;
      const { bindView, connect: dial, stream: ask } = globalThis.wetink;
      let touched = 0;
      new MutationObserver((changes) => {
        for (const { target, type, removedNodes } of changes) {
          const element = type === "characterData" ? target.parentElement : (target as Element);
          const isCommitted = element?.closest(".wetink-committed") !== null;
          const isText = type === "characterData" || [...removedNodes].some((node) => node.nodeName === "#text");
          if (isCommitted && isText) touched += 1;
        }
      }).observe(main, { subtree: true, childList: true, characterData: true });
      const reading = how === "stream" ? ask("", request) : dial("").start(request);
      bindView(main, reading, { retractedMs: 0 });
      const { text } = await reading.finished;
      while (main.textContent !== text) await new Promise((resolve) => requestAnimationFrame(resolve));
      return { text: main.textContent, touched };
    },
    [way, REQUEST] as const,
  );
}

test.each(["stream", "connect"] as const)("a page shows what the model alone would have said, by %s", async (way) => {
  const page = await libraryPage(browser, gateway.url);
  expect(await shownIn(page, way)).toEqual({ text: truth, touched: 0 });
  await page.close();
});

test("a visitor's notice of a kill outlives that of a cut, and no error is left when the engine is back", async () => {
  const page = await browser.newPage();
  const complaints: string[] = [];
  page.on("console", (message) => {
    if (message.type() === "error") complaints.push(message.text());
  });
  await page.goto(gateway.url);
  await page.waitForSelector('#status[data-state="ready"]', { timeout: 120_000 });
  await page.click("#examples button >> nth=1");
  await page.waitForFunction(() => (document.querySelector("#pane-hold .text")?.textContent?.length ?? 0) > 20);
  await page.click("#kill");
  await page.click("#cut");
  await page.waitForSelector('#pane-hold[data-state="cut"]');
  await page.waitForSelector('#pane-hold[data-state=""]');
  expect(await page.textContent("#event")).toContain("The engine is dead");
  await page.waitForFunction(() => document.querySelector("#pane-hold .note")?.textContent?.startsWith("Engine killed"));
  await page.waitForSelector('#status[data-state="ready"]', { timeout: 120_000 });
  expect(await page.textContent("#event")).toMatch(/^Another engine runs after/);
  await page.waitForSelector("#verdict:not([hidden])", { timeout: 120_000 });
  expect(await page.isHidden("#refusal")).toBe(true);
  expect(complaints).toEqual([]);
  await page.close();
});
