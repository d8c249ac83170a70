/** `/wetink.js` in a real browser, from a real gateway: what a page shows. */

import type { Browser, Page } from "playwright-core";
import { afterAll, beforeAll, describe, expect, test } from "vitest";

import { launch, libraryPage } from "../../../testing/browser.js";
import { ByteProxy } from "../../../testing/byte-proxy.js";
import { Gateway } from "../../../testing/gateway.js";
import { longTrace, MIXED, MIXED_TEXT } from "../../../testing/traces.js";

const LONG = longTrace(5000);
const SLOW = longTrace(15, 15);
/** Bytes after which the connections are cut, one after the other. */
const CUTS = [
  ...[0, 10, 11, 12, 60, 100, 150, 200, 250, 300].map((at) => [at, at]),
  ...[420, 470, 530, 610, 700, 801, 900, 1033, 1200, 1700].map((at) => [at, at - 300, 500]),
];

let gateway: Gateway;
let proxy: ByteProxy;
let browser: Browser;
let page: Page;

beforeAll(async () => {
  gateway = await Gateway.start({ mixed: MIXED, long: LONG.trace, slow: SLOW.trace });
  proxy = new ByteProxy(gateway.url);
  const url = await proxy.listen();
  browser = await launch();
  page = await libraryPage(browser, url);
});

afterAll(async () => {
  await browser.close();
  await Promise.all([proxy.close(), gateway.stop()]);
});

interface Shown {
  readonly text: string;
  readonly digest: string;
  readonly finished: string;
  /** Times that a node of committed text was changed, moved or removed. */
  readonly touched: number;
  /** Patches, as far as a MutationObserver tells them apart. */
  readonly patches: number;
  /** Text nodes that were ever struck out. */
  readonly struck: string[];
}

interface Asked {
  readonly model: string;
  readonly way: "stream" | "connect" | "eventSource";
  readonly offsets: "utf-16" | "codepoint" | "utf-8";
}

/** Reads a generation into `main` and reports what a MutationObserver saw. */
async function show(asked: Asked): Promise<Shown> {
  const events = asked.way === "eventSource" ? await gateway.generate(asked.model) : "";
  return page.evaluate(async ({ model, way, offsets, path }) => {
    const { connect, stream, eventSource, bindView } = globalThis.wetink;
    const main = document.querySelector("main") as HTMLElement;
    main.replaceChildren();
    const seen = { touched: 0, patches: 0, struck: [] as string[] };
    const look = (records: MutationRecord[]): void => {
      seen.patches += 1;
      for (const { type, target, addedNodes, removedNodes } of records) {
        const struck = [...addedNodes].filter((node) => node.nodeName === "DEL");
        seen.struck.push(...struck.map((node) => node.textContent ?? ""));
        const element = target instanceof Element ? target : target.parentElement;
        if (!element?.closest(".wetink-committed")) continue;
        const gone = [...removedNodes].filter((node) => node.nodeName !== "DEL");
        seen.touched += type === "characterData" ? 1 : gone.length;
      }
    };
    const observer = new MutationObserver(look);
    observer.observe(main, { subtree: true, childList: true, characterData: true });
    const request = { model, prompt: "hi", policy: "retract", offsets };
    const retry = { firstMs: 5, longestMs: 20 };
    const start = {
      stream: () => stream("", request, { retry }),
      connect: () => connect("", { retry }).start(request),
      eventSource: () => eventSource(`${path}?policy=retract&offsets=${offsets}`, { retry }),
    };
    const reading = start[way]();
    bindView(main, reading, { retractedMs: 20 });
    const { parts, digest } = await reading.finished;
    // The next frame paints the end; what is struck out goes a little later.
    await new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve)));
    while (main.querySelector("del") !== null) await new Promise((resolve) => setTimeout(resolve, 5));
    look(observer.takeRecords());
    const finished = parts.map(({ committed }) => committed).join("");
    return { ...seen, text: main.textContent ?? "", finished, digest };
  }, { ...asked, path: events });
}

describe.each(["stream", "connect", "eventSource"] as const)("with %s", (way) => {
  test.each(["utf-16", "codepoint", "utf-8"] as const)("a page shows the text of the digest in %s", async (offsets) => {
    const shown = await show({ model: "mixed", way, offsets });
    expect(shown).toMatchObject({ text: MIXED_TEXT, finished: MIXED_TEXT, touched: 0 });
    // WebCrypto is there: loopback is a secure context.
    expect(shown.digest).toBe("match");
  });

  test("a page shows the text of the digest after any cut, and no committed node was touched", async () => {
    for (const each of CUTS) {
      proxy.cutNext(each);
      const shown = await show({ model: "mixed", way, offsets: "utf-16" });
      expect(shown).toMatchObject({ text: MIXED_TEXT, finished: MIXED_TEXT, touched: 0, digest: "match" });
    }
  });

  test("a page of 10,000 events shows their text, in fewer patches than events", async () => {
    const shown = await show({ model: "long", way, offsets: "utf-16" });
    expect(shown.text === LONG.text).toBe(true);
    expect(shown.touched).toBe(0);
    expect(shown.patches).toBeLessThan(2000);
  });
});

test("a page strikes out what was taken back, and hides it from screen readers with the tail", async () => {
  const { before, after, roles } = await page.evaluate(async () => {
    const { stream, bindView } = globalThis.wetink;
    const main = document.querySelector("main") as HTMLElement;
    main.replaceChildren();
    const { readable, writable } = new TransformStream<Uint8Array<ArrayBuffer>>();
    const writer = writable.getWriter();
    const say = (event: object): Promise<void> =>
      writer.write(new TextEncoder().encode(`data: ${JSON.stringify(event)}\n\n`));
    const answer = new Response(readable, { headers: { "Content-Type": "text/event-stream" } });
    const reading = stream("", { prompt: "hi" }, { fetch: () => Promise.resolve(answer) });
    const unbind = bindView(main, reading, { retractedMs: 60_000 });
    const shows = async (text: string): Promise<string> => {
      while (main.textContent !== text) await new Promise(requestAnimationFrame);
      return main.innerHTML;
    };
    void say({ type: "open", v: 1, stream: "s", epoch: 7, model: "m", policy: {}, offsets: "utf-16", part: 0, at: 0 });
    void say({ type: "tentative", at: 0, text: "a brown fox", verified: 2 });
    const whole = await shows("a brown fox");
    const retract = { at: 2, n: 9, cause: "draft_rejected" };
    void say({ type: "commit", at: 0, text: "a red", retract });
    const corrected = await shows("a brown foxred");
    unbind();
    const part = main.querySelector(".wetink-part") as HTMLElement;
    const hidden = [...part.children].map((child) => [child.ariaLive, child.ariaHidden, child.className]);
    return { before: whole, after: corrected, roles: hidden };
  });
  expect(before).toContain('<span class="wetink-verified">a </span><span class="wetink-tentative">brown fox</span>');
  expect(after).toContain('a <del class="wetink-retracted" aria-hidden="true">brown fox</del>red');
  expect(roles).toEqual([
    ["polite", null, "wetink-committed"],
    [null, "true", "wetink-tail"],
  ]);
});

test("a page for readers who want less motion strikes nothing out", async () => {
  await page.emulateMedia({ reducedMotion: "reduce" });
  const { struck, text } = await show({ model: "slow", way: "stream", offsets: "utf-16" });
  await page.emulateMedia({ reducedMotion: null });
  expect([struck, text]).toEqual([[], SLOW.text]);
});

test("a page without frames paints nothing, and all of it with the first one", async () => {
  const { hidden, shown, nodes } = await page.evaluate(async () => {
    const { stream, bindView } = globalThis.wetink;
    const main = document.querySelector("main") as HTMLElement;
    main.replaceChildren();
    // As in a page in the background.
    const frame = globalThis.requestAnimationFrame;
    const held: FrameRequestCallback[] = [];
    globalThis.requestAnimationFrame = (callback) => held.push(callback);
    const reading = stream("", { model: "slow", prompt: "hi", policy: "retract" });
    bindView(main, reading);
    await reading.finished;
    const before = main.textContent;
    for (const callback of held.splice(0)) callback(performance.now());
    globalThis.requestAnimationFrame = frame;
    const committed = main.querySelector(".wetink-committed") as HTMLElement;
    return { hidden: before, shown: main.textContent, nodes: committed.childNodes.length };
  });
  // One node: what was drafted and taken back meanwhile was never in the page.
  expect({ hidden, shown, nodes }).toEqual({ hidden: "", shown: SLOW.text, nodes: 1 });
});

test("a page that was frozen in the background goes on when it is looked at", async () => {
  const devtools = await page.context().newCDPSession(page);
  const showing = show({ model: "slow", way: "stream", offsets: "utf-16" });
  await page.waitForFunction(() => (document.querySelector("main")?.textContent?.length ?? 0) > 30);
  await devtools.send("Page.setWebLifecycleState", { state: "frozen" });
  proxy.cut();
  const other = await libraryPage(browser, gateway.url);
  await other.evaluate(() => globalThis.wetink.stream("", { model: "slow", prompt: "hi" }).finished);
  await other.close();
  await devtools.send("Page.setWebLifecycleState", { state: "active" });
  expect(await showing).toMatchObject({ text: SLOW.text, touched: 0, digest: "match" });
});

test("a binding that was ended changes the page no more", async () => {
  const [before, after] = await page.evaluate(async () => {
    const { stream, bindView } = globalThis.wetink;
    const main = document.querySelector("main") as HTMLElement;
    main.replaceChildren();
    const reading = stream("", { model: "slow", prompt: "hi", policy: "hold" });
    const unbind = bindView(main, reading);
    while (main.textContent === "") await new Promise(requestAnimationFrame);
    unbind();
    const text = main.textContent;
    await reading.finished;
    await new Promise(requestAnimationFrame);
    return [text, main.textContent];
  });
  expect(after).toBe(before);
});
