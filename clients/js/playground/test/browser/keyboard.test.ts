/** The page at `/` without a pointer. */

import type { Browser, Page } from "playwright-core";
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from "vitest";

import { launch } from "../../../testing/browser.js";
import { Gateway, type Trace } from "../../../testing/gateway.js";

const TEXT = "The red fox jumps. It lands and rests.";
/** More stops than the page has. */
const MOST_STOPS = 80;

function fox(after_ms: number, times = 1): Trace {
  const words = TEXT.repeat(times).split(/(?<= )/);
  const steps = words.map((text) => ({ after_ms, event: "verified", text, tokens: [{ id: 1, n: text.length }] }));
  return [...steps, { event: "finished", reason: "stop" }];
}

let gateway: Gateway;
let browser: Browser;
let page: Page;

beforeAll(async () => {
  [gateway, browser] = await Promise.all([Gateway.start({ fox: fox(20), slow: fox(250, 40) }), launch()]);
});
afterAll(async () => {
  await Promise.all([gateway.stop(), browser.close()]);
});
beforeEach(async () => {
  const permissions = ["clipboard-read", "clipboard-write"];
  const context = await browser.newContext({ viewport: { width: 1440, height: 900 }, permissions });
  page = await context.newPage();
});
afterEach(async () => {
  await page.context().close();
});

async function open(model: string): Promise<void> {
  await page.goto(`${gateway.url}/#${new URLSearchParams({ prompt: "?", model })}`);
  await page.waitForSelector('#status[data-state="ready"]');
}

/** What the keyboard acts on: a name, and whether it can be seen to do so. */
async function focused(): Promise<{ name: string; isVisible: boolean } | null> {
  return page.evaluate(() => {
    const element = document.activeElement;
    if (!(element instanceof HTMLElement) || element === document.body) return null;
    const { outlineStyle, outlineWidth } = getComputedStyle(element.closest("label.file") ?? element);
    const isOutlined = outlineStyle !== "none" && Number.parseFloat(outlineWidth) >= 2;
    const box = element.closest(".prompt");
    const isFramed = box !== null && element.matches("textarea") && getComputedStyle(box).borderColor !== getComputedStyle(document.querySelector(".settings") as Element).borderColor;
    const name = element.id || element.getAttribute("aria-label") || element.textContent;
    return { name, isVisible: isOutlined || isFramed };
  });
}

async function tabTo(name: string): Promise<void> {
  for (let stops = 0; stops < MOST_STOPS; stops += 1) {
    if ((await focused())?.name === name) return;
    await page.keyboard.press("Tab");
  }
  throw new Error(`Tab does not reach ${name}`);
}

test("visitor reaches all there is with Tab, in the order it is read, and sees where they are", async () => {
  await open("fox");
  expect((await focused())?.name).toBe("prompt");
  await page.keyboard.press("Enter");
  await page.waitForSelector("#verdict:not([hidden])");
  await tabTo("settings-button");
  await page.keyboard.press("Enter");
  const all = await page.evaluate(() =>
    [...document.querySelectorAll<HTMLElement>('a[href], button, input, select, textarea, [tabindex="0"]')]
      .filter((each) => each.checkVisibility() && !each.matches(":disabled"))
      .map((each) => each.id || each.getAttribute("aria-label") || each.textContent),
  );
  expect(all.length).toBeGreaterThan(25);
  const stops: string[] = [];
  await page.focus(".brand");
  await page.keyboard.press("Tab");
  await page.keyboard.press("Shift+Tab");
  for (let stop = await focused(); stop !== null && stop.name !== stops[0]; stop = await focused()) {
    expect(stop).toMatchObject({ name: stop.name, isVisible: true });
    stops.push(stop.name);
    await page.keyboard.press("Tab");
  }
  expect(stops).toEqual(all);
});

test("visitor opens and closes the settings, and comes back to where they were", async () => {
  await open("fox");
  for (const key of ["Enter", "Space"]) {
    await tabTo("settings-button");
    await page.keyboard.press(key);
    expect(await page.isVisible("#settings")).toBe(true);
    await tabTo("seed");
    await page.keyboard.type("42");
    await page.keyboard.press("Escape");
    expect(await page.isHidden("#settings")).toBe(true);
    expect((await focused())?.name).toBe("settings-button");
  }
  expect(await page.inputValue("#seed")).toBe("42");
  await page.keyboard.press("Space");
  await page.keyboard.press("Space");
  expect(await page.isHidden("#settings")).toBe(true);
  expect((await focused())?.name).toBe("settings-button");
});

test("visitor cuts a run with the keyboard, and stops it", async () => {
  await open("slow");
  await page.keyboard.press("Enter");
  await page.waitForSelector("#cut:enabled");
  await tabTo("cut");
  await page.keyboard.press("Space");
  await page.waitForSelector('#pane-hold[data-state="cut"]');
  await page.waitForSelector('#pane-hold[data-state=""]');
  await tabTo("run");
  await page.keyboard.press("Enter");
  await page.waitForSelector("#verdict:not([hidden])");
});

test("visitor replays a run, moves through it, and shares it with the keyboard", async () => {
  await open("fox");
  await page.keyboard.press("Enter");
  await page.waitForSelector("#verdict:not([hidden])");
  await tabTo(await page.locator("#caption button").textContent().then((text) => text ?? ""));
  await page.keyboard.press("Enter");
  expect((await focused())?.name).toBe("play");
  expect(await page.getAttribute("#play", "aria-label")).toBe("Pause");
  await page.keyboard.press("Space");
  expect(await page.getAttribute("#play", "aria-label")).toBe("Play");
  const text = (): Promise<string | null> => page.textContent("#pane-hold .text");
  await tabTo("scrub");
  await page.keyboard.press("End");
  expect(await text()).toBe(TEXT);
  await page.keyboard.press("Home");
  expect(await text()).toBe("");
  await tabTo("speed");
  await page.keyboard.press("ArrowDown");
  expect(await page.inputValue("#speed")).not.toBe("0.1");
  await tabTo("share-link");
  await page.keyboard.press("Enter");
  await page.waitForFunction(() => document.querySelector("#copied")?.textContent === "Copied");
  expect(await page.evaluate(() => navigator.clipboard.readText())).toContain("#prompt=");
  await tabTo("open-file");
  // The browser's own window is left closed: a headless one does not always say that it would open.
  await page.evaluate(() => {
    const input = document.querySelector<HTMLInputElement>("#open-file");
    input?.addEventListener("click", (click) => {
      click.preventDefault();
      input.dataset["asked"] = "yes";
    });
  });
  await page.keyboard.press("Enter");
  await page.waitForSelector('#open-file[data-asked="yes"]', { state: "attached" });
});
