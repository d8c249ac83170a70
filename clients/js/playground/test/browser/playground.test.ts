/** The page at `/` in a real browser, from a real gateway. */

import type { Browser, BrowserContextOptions, Page } from "playwright-core";
import { afterAll, afterEach, beforeAll, expect, test } from "vitest";

import { launch } from "../../../testing/browser.js";
import { Gateway, type Trace } from "../../../testing/gateway.js";
import { encodeRecording, type Recording } from "../../src/run/recording.js";
import { RECORDING } from "../questions.js";

const SENTENCES = ["The red fox jumps. ", "It <b>lands</b> & rests. "];
const TEXT = SENTENCES.join("").repeat(2).trim();
const PANES = ["hold", "retract", "chunk"];

/** Word by word, each behind a draft whose second word is wrong. */
function fox(afterMs: number): Trace {
  const words = TEXT.split(/(?<= )/);
  const steps = words.flatMap((word) => [
    { event: "drafted", tail: `${word}wrong`, tokens: [{ id: 1, n: word.length, confidence: 0.9 }, { id: 2, n: 5, confidence: 0.4 }] },
    { after_ms: afterMs, event: "verified", text: word, cause: "draft_rejected", tokens: [{ id: 1, n: word.length }] },
  ]);
  return [...steps, { event: "finished", reason: "stop" }];
}

/** Code between paragraphs, three times what a pane holds. */
const LISTING = "```python\nprint(1)\n```\n";
function essay(): { trace: Trace; text: string } {
  const paragraphs = Array.from({ length: 12 }, (_, n) => `Paragraph ${n} says little, and says it slowly.\n${LISTING}`);
  const steps = paragraphs.map((text) => ({ after_ms: 20, event: "verified", text, tokens: [{ id: 1, n: text.length }] }));
  return { trace: [...steps, { event: "finished", reason: "stop" }], text: paragraphs.join("") };
}
const ESSAY = essay();

/** Several parts of one paragraph, where rows begin within what comes, and then with it. */
function paragraph(): { trace: Trace; text: string } {
  const words = Array.from({ length: 700 }, (_, n) => (n < 350 ? ` word${n}` : `word${n} `));
  const steps = words.map((text) => ({ after_ms: 2, event: "verified", text, tokens: [{ id: 1, n: text.length }] }));
  return { trace: [...steps, { event: "finished", reason: "stop" }], text: words.join("") };
}
const PARAGRAPH = paragraph();

let gateway: Gateway;
let browser: Browser;
let page: Page;
/** What the browser complained of, a breach of the page's own policy for instance. */
let complaints: string[];

beforeAll(async () => {
  [gateway, browser] = await Promise.all([
    Gateway.start({ fox: fox(20), steady: fox(80), slow: fox(250), essay: ESSAY.trace, paragraph: PARAGRAPH.trace }),
    launch(),
  ]);
});
afterAll(async () => {
  await Promise.all([gateway.stop(), browser.close()]);
});
afterEach(async () => {
  await page.context().close();
});

async function open(question: Record<string, string> | null, options: BrowserContextOptions = {}): Promise<void> {
  const context = await browser.newContext({ viewport: { width: 1440, height: 900 }, ...options });
  page = await context.newPage();
  complaints = [];
  page.on("console", (message) => {
    if (message.type() === "error") complaints.push(message.text());
  });
  page.on("pageerror", ({ message }) => complaints.push(message));
  await page.goto(`${gateway.url}/${question === null ? "" : `#${new URLSearchParams(question)}`}`);
  await page.waitForSelector('#status[data-state="ready"]');
}

async function textOf(pane: string): Promise<string> {
  return page.locator(`#pane-${pane} .text`).evaluate((text) =>
    [...text.querySelectorAll(".line > span:not(.ghost)")].map((span) => span.textContent).join(""),
  );
}

async function run(): Promise<void> {
  await page.click("#run");
  await page.waitForSelector("#verdict:not([hidden])");
}

test("visitor sees one answer three ways, and its markup as text", async () => {
  await open({ prompt: "What does the fox do?", model: "steady" });
  const tentative = page.waitForFunction(
    () => document.querySelector("#pane-retract .wet")?.textContent?.includes("wrong"),
  );
  const struck = page.waitForSelector("#pane-retract .ghost span", { state: "attached" });
  await run();
  await Promise.all([tentative, struck]);
  for (const pane of PANES) expect(await textOf(pane)).toBe(TEXT);
  expect(await page.textContent("#verdict")).toContain("the same text, byte for byte");
  const lit = await page.locator("#pane-chunk .lit").allTextContents();
  expect(lit.slice(0, 2)).toEqual(SENTENCES);
  expect(await page.locator("#pane-hold .ghost, #pane-chunk .ghost").count()).toBe(0);
  expect(await page.textContent("#pane-hold .facts")).toContain("taken backnothing");
  expect(await page.textContent("#source")).toBe("");
  expect(complaints).toEqual([]);
});

test("committed words are never touched again", async () => {
  await open({ prompt: "?", model: "fox" });
  await page.evaluate(() => {
    const touched: string[] = [];
    Object.assign(window, { touched });
    new MutationObserver((changes) => {
      for (const { target, type, removedNodes } of changes) {
        const parent = type === "characterData" ? target.parentElement : (target as Element);
        if (parent?.closest(".dries, .comes, .lit")) touched.push(parent.className);
        for (const gone of removedNodes) {
          if (gone instanceof Element && gone.matches(".dries, .comes, .lit")) touched.push("gone");
        }
      }
    }).observe(document.querySelector(".panes") as Element, { subtree: true, childList: true, characterData: true });
  });
  await run();
  expect(await page.evaluate("touched")).toEqual([]);
});

test("screen reader hears committed sentences alone", async () => {
  await open({ prompt: "?", model: "fox" });
  const live = await page.locator("[aria-live]").evaluateAll((found) => found.map(({ id }) => id));
  expect(live).toEqual(["announce"]);
  await page.evaluate(() => {
    const heard: string[] = [];
    Object.assign(window, { heard });
    new MutationObserver((changes) => {
      for (const { addedNodes } of changes) for (const node of addedNodes) heard.push(node.textContent ?? "");
    }).observe(document.querySelector("#announce") as Element, { childList: true });
  });
  await run();
  const heard = (await page.evaluate("heard")) as string[];
  expect(heard.join("")).toBe(TEXT);
  expect(heard.join("")).not.toContain("wrong");
  expect(await page.locator(".text :is(.wet, .ghost):not([aria-hidden])").count()).toBe(0);
});

test("visitor's cut connection is resumed before their eyes, nothing lost, nothing twice", async () => {
  await open({ prompt: "?", model: "slow" });
  await page.click("#run");
  await page.waitForFunction(() => document.querySelector("#pane-hold .text")?.textContent?.includes("fox"));
  await page.click("#cut");
  await page.waitForSelector('#pane-hold[data-state="cut"]');
  const atCut = await textOf("hold");
  await page.waitForSelector('#pane-hold[data-state=""]');
  expect(await page.textContent("#pane-hold .note")).toContain(`Resumed at character ${atCut.length}:`);
  await page.waitForSelector("#verdict:not([hidden])");
  for (const pane of PANES) expect(await textOf(pane)).toBe(TEXT);
});

test("visitor stops an answer, and keeps what is committed", async () => {
  await open({ prompt: "?", model: "slow" });
  await page.click("#run");
  await page.waitForFunction(() => document.querySelector("#pane-hold .text")?.textContent?.includes("fox"));
  await page.click("#run");
  await page.waitForSelector("#verdict:not([hidden])");
  const text = await textOf("hold");
  expect(TEXT.startsWith(text) && text !== TEXT).toBe(true);
  expect(await textOf("retract")).toBe(text);
});

test("visitor goes back in a run, and on again", async () => {
  await open({ prompt: "?", model: "fox" });
  await run();
  const scrub = page.locator("#scrub");
  await scrub.fill("0");
  expect(await textOf("hold")).toBe("");
  await scrub.fill("1000");
  for (const pane of PANES) expect(await textOf(pane)).toBe(TEXT);
  await scrub.fill("500");
  const middle = await textOf("hold");
  expect(TEXT.startsWith(middle) && middle !== "" && middle !== TEXT).toBe(true);
});

test("visitor is offered a run again that was too fast to see", async () => {
  await open({ prompt: "?", model: "fox" });
  await run();
  await page.click("#caption button");
  expect(await page.inputValue("#speed")).toBe("0.1");
  expect(await page.getAttribute("#play", "aria-label")).toBe("Pause");
  await page.waitForFunction(
    (length) => {
      const shown = document.querySelector("#pane-hold .text")?.textContent?.length ?? 0;
      return shown > 0 && shown < length;
    },
    TEXT.length / 2,
  );
});

async function play(recording: Recording): Promise<void> {
  const buffer = Buffer.from(encodeRecording(recording));
  await page.setInputFiles("#open-file", { name: "run.json", mimeType: "application/json", buffer });
  await page.waitForSelector("#verdict:not([hidden])");
}

function facts(pane: string): Promise<string[]> {
  return page.locator(`#pane-${pane} .facts div`).allTextContents();
}

test("visitor sees when each reader had the first text, and the first that was checked", async () => {
  await open({ prompt: "?", model: "fox" });
  await play(RECORDING);
  expect((await facts("hold")).slice(0, 2)).toEqual(["first text0.40 s", "first checked text0.40 s"]);
  expect((await facts("retract")).slice(0, 2)).toEqual(["first text0.10 s", "first checked text0.40 s"]);
  expect((await facts("chunk")).slice(0, 2)).toEqual(["first text0.70 s", "first checked text0.70 s"]);
});

test("visitor learns of a word who wrote it, by pointer and by keyboard", async () => {
  await open({ prompt: "?", model: "fox" });
  await play(RECORDING);
  const first = await page.locator("#pane-hold .line > span").first().boundingBox();
  await page.mouse.move((first?.x ?? 0) + 8, (first?.y ?? 0) + 10);
  await page.waitForSelector("#tip:not([hidden])");
  expect(await page.textContent("#tip")).toMatch(/“The”Guessed by the drafter .*, 90 % sure.*right/);
  await page.focus("#pane-chunk .text");
  await page.keyboard.press("ArrowRight");
  expect(await page.textContent("#tip strong")).toBe("“red”");
  await page.keyboard.press("Escape");
  expect(await page.isHidden("#tip")).toBe(true);
});

test("visitor is told why a request was refused", async () => {
  await open({ prompt: "word ".repeat(4200), model: "fox" });
  await page.click("#run");
  await page.waitForSelector("#refusal:not([hidden])");
  expect(await page.textContent("#refusal")).toMatch(/the context holds 4096.*\(context_exceeded\)/);
  expect(await page.textContent("#run")).toBe("Run");
});

test("visitor who opens the page without doing anything sees a recorded answer play", async () => {
  await open(null);
  await page.waitForSelector("#pane-retract .ghost span", { state: "attached" });
  expect(await page.textContent("#caption")).toContain("A recorded answer to “Describe the smell of rain");
  expect(complaints).toEqual([]);
});

test("visitor who wants less motion sees the recorded answer at its end", async () => {
  await open(null, { reducedMotion: "reduce" });
  await page.waitForSelector("#verdict:not([hidden])");
  expect(await textOf("hold")).toMatch(/comfort\.$/);
});

test("a run is shared as a file and played by whoever opens it", async () => {
  await open({ prompt: "What does the fox do?", model: "fox" });
  await run();
  const [download] = await Promise.all([page.waitForEvent("download"), page.click("#share-file")]);
  const file = await download.path();
  await page.reload();
  await page.setInputFiles("#open-file", file);
  await page.selectOption("#speed", "4");
  await page.waitForSelector("#verdict:not([hidden])");
  for (const pane of PANES) expect(await textOf(pane)).toBe(TEXT);
  expect(await page.inputValue("#prompt")).toBe("What does the fox do?");
});

test("visitor is told where guesses come from that another model makes", async () => {
  await open({ prompt: "?", model: "fox" });
  const entries = RECORDING.entries.map(({ event, ...rest }) => ({
    ...rest,
    event: event.type === "open" ? { ...event, model: "large", draft_model: "small" } : event,
  }));
  await play({ ...RECORDING, entries });
  expect(await page.textContent("#source")).toBe("The guesses come from another model, small; large checks them.");
  await page.focus("#pane-retract .text");
  await page.keyboard.press("ArrowRight");
  expect(await page.textContent("#tip")).toContain("Guessed by the drafter (small)");
});

test("page fits a phone without scrolling sideways, and hides what is no demonstration", async () => {
  await open({ prompt: "What does the fox do?", model: "fox" }, { viewport: { width: 390, height: 844 }, hasTouch: true });
  await run();
  const width = (): Promise<number> => page.evaluate(() => document.documentElement.scrollWidth);
  expect(await width()).toBe(390);
  await page.click("#settings-button");
  expect(await width()).toBe(390);
  for (const pane of PANES) {
    const list = page.locator(`#pane-${pane} .facts`);
    expect(await list.evaluate((each) => each.scrollWidth - each.clientWidth)).toBe(0);
  }
  const right = (await page.locator("#examples button").last().boundingBox()) ?? { x: 0, width: 1000 };
  expect(right.x + right.width).toBeLessThan(390);
  expect(await page.isHidden("#kill")).toBe(true);
  expect(await page.isHidden("#delay")).toBe(true);
});

test("visitor is told when the gateway is gone", async () => {
  const own = await Gateway.start({ fox: fox(5) });
  const [before] = [gateway];
  gateway = own;
  try {
    await open({ prompt: "?", model: "fox" });
  } finally {
    gateway = before;
  }
  await own.stop();
  await page.waitForSelector('#status[data-state="down"]');
  expect(await page.textContent("#status")).toBe("the gateway does not answer");
});

test("visitor of a gateway with keys is asked for one, and reads with it", async () => {
  const own = await Gateway.start({ fox: fox(5) }, { keyed: true });
  const context = await browser.newContext();
  page = await context.newPage();
  const broken: string[] = [];
  page.on("pageerror", ({ message }) => broken.push(message));
  try {
    await page.goto(own.url);
    await page.waitForSelector("#key-form:not([hidden])");
    expect(await page.textContent("#status")).toBe("a key is needed");
    await page.fill("#key", "wetink_nobody_nothing");
    await page.click("#key-form button");
    await page.waitForFunction(() => document.querySelector("#key-label")?.textContent?.startsWith("This key is not taken"));
    await page.fill("#key", own.key ?? "");
    await page.keyboard.press("Enter");
    await page.waitForSelector("#key-form", { state: "hidden" });
    expect(await page.evaluate(() => document.activeElement?.id)).toBe("prompt");
    await page.fill("#prompt", "What does the fox do?");
    await run();
    for (const pane of PANES) expect(await textOf(pane)).toBe(TEXT);
    expect(broken).toEqual([]);
  } finally {
    await own.stop();
  }
});

test("visitor who asks nothing is shown the first example", async () => {
  await open(null);
  await page.click("#run");
  await page.waitForSelector("#verdict:not([hidden])");
  expect(await page.inputValue("#prompt")).toContain("the smell of rain");
  expect(await textOf("hold")).toBe(ESSAY.text); // of the first model
});

test("visitor closes the settings with Escape, and stays at their button", async () => {
  await open({ prompt: "?", model: "fox" });
  await page.click("#budget-chip");
  expect(await page.evaluate(() => document.activeElement?.id)).toBe("budget");
  await page.keyboard.press("ArrowLeft");
  expect(await page.textContent("#budget-chip")).toBe("budget 50 %");
  await page.keyboard.press("Escape");
  expect(await page.isHidden("#settings")).toBe(true);
  expect(await page.evaluate(() => document.activeElement?.id)).toBe("settings-button");
});

test("visitor reads code in a fixed pitch, follows a long answer, and unfolds it", async () => {
  await open({ prompt: "?", model: "essay" });
  await run();
  for (const pane of PANES) expect(await textOf(pane)).toBe(ESSAY.text);
  const code = await page.locator("#pane-retract .code").allTextContents();
  expect(code.join("")).toBe(LISTING.trimEnd().repeat(12));
  const font = (selector: string): Promise<string> =>
    page.locator(selector).first().evaluate((element) => getComputedStyle(element).fontFamily);
  expect(await font("#pane-retract .code")).toContain("mono");
  expect(await font("#pane-retract .line > span")).not.toContain("mono");
  const left = (): Promise<number> =>
    page.locator("#pane-hold .text").evaluate((text) => text.scrollHeight - text.clientHeight - text.scrollTop);
  expect(await left()).toBeLessThan(2);
  await page.focus("#verdict button");
  await page.keyboard.press("Enter");
  expect(await page.evaluate(() => document.activeElement?.closest("article")?.id)).toBe("pane-hold");
  const hidden = await page.locator("#pane-hold .text").evaluate((text) => text.scrollHeight - text.clientHeight);
  expect(hidden).toBe(0);
});

test("a long paragraph is laid out in parts while it comes, and is one again at its end", async () => {
  await open({ prompt: "?", model: "paragraph" });
  await page.evaluate(() => {
    let most = 0;
    new MutationObserver(() => {
      const parts = [...document.querySelectorAll<HTMLElement>("#pane-retract .text:not(.joined) .part")];
      most = Math.max(most, parts.length);
      Object.assign(window, { most, longest: Math.max(...parts.map((part) => part.textContent.length)) });
    }).observe(document.querySelector("#pane-retract .text") as Element, { subtree: true, childList: true });
  });
  await run();
  expect(await page.evaluate("most")).toBeGreaterThan(3);
  expect(await page.evaluate("longest")).toBeLessThan(1700);
  for (const pane of PANES) expect(await textOf(pane)).toBe(PARAGRAPH.text);
  // The parts begin where rows do: with or without them, the text is as high.
  const [joined, parted] = await page.locator("#pane-retract .text").evaluate((text) => {
    const heights = [text.scrollHeight];
    text.classList.remove("joined");
    return [...heights, text.scrollHeight];
  });
  expect(joined).toBe(parted);
});

test("visitor who copies an answer gets its lines as they are", async () => {
  await open({ prompt: "?", model: "essay" });
  await run();
  const copied = await page.evaluate(() => {
    const text = document.querySelector("#pane-hold .text");
    if (text !== null) getSelection()?.selectAllChildren(text);
    return getSelection()?.toString();
  });
  expect(copied?.trimEnd()).toBe(ESSAY.text.trimEnd());
});
