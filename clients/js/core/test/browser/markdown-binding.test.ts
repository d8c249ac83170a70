/** Markdown in a real browser, with the parser that the documentation names. */

import { fileURLToPath } from "node:url";

import { buildSync } from "esbuild";
import type { Browser } from "playwright-core";
import { afterAll, beforeAll, expect, test } from "vitest";

import type { Markdown } from "../../src/dom/index.js";
import { launch, libraryPage } from "../../../testing/browser.js";
import { Gateway, type Trace } from "../../../testing/gateway.js";

const TEXT = "# Ink\n\n- wet\n- *dry*\n\nSaid <img src=x onerror=alert(1)> **once**.\n\nDone, 墨.";

/** The text in words, each drafted first, some of them wrong. */
function trace(): Trace {
  const steps: object[] = [];
  for (const [index, text] of (TEXT.match(/\S+\s*/g) ?? []).entries()) {
    const isRejected = index % 3 === 1;
    steps.push({ after_ms: 10, event: "drafted", tail: isRejected ? "## wrong\n\n> no " : text });
    steps.push({ after_ms: isRejected ? 150 : 10, event: "verified", text, ...(isRejected && { cause: "draft_rejected" }) });
  }
  return [...steps, { event: "finished", reason: "stop" }];
}

let gateway: Gateway;
let browser: Browser;

beforeAll(async () => {
  gateway = await Gateway.start({ text: trace() });
  browser = await launch();
});

afterAll(async () => {
  await browser.close();
  await gateway.stop();
});

const PARSER = `
  import { marked } from "marked";
  import DOMPurify from "dompurify";
  globalThis.markdown = {
    blocks: (text) => marked.lexer(text).map(({ raw }) => raw),
    render: (block) => DOMPurify.sanitize(marked.parse(block), { RETURN_DOM_FRAGMENT: true }),
  };
`;

declare global {
  var markdown: Markdown;
}

test("a page renders each complete block once, and only the open ones again", async () => {
  const page = await libraryPage(browser, gateway.url);
  const resolveDir = fileURLToPath(new URL(".", import.meta.url));
  const built = buildSync({ stdin: { contents: PARSER, resolveDir }, bundle: true, write: false, format: "iife" });
  await page.addScriptTag({ content: built.outputFiles[0]?.text ?? "" });
  const shown = await page.evaluate(async () => {
    const { stream, bindMarkdown } = globalThis.wetink;
    const main = document.querySelector("main") as HTMLElement;
    let touched = 0;
    const tentative: string[] = [];
    const observer = new MutationObserver((records) => {
      for (const { type, target, removedNodes } of records) {
        const element = target instanceof Element ? target : target.parentElement;
        if (!element?.closest(".wetink-committed")) continue;
        touched += type === "characterData" ? 1 : removedNodes.length;
      }
      for (const span of main.querySelectorAll(".wetink-tentative")) tentative.push(span.textContent ?? "");
    });
    observer.observe(main, { subtree: true, childList: true, characterData: true });
    const reading = stream("", { model: "text", prompt: "hi", policy: "retract" });
    bindMarkdown(main, reading, globalThis.markdown);
    const { text } = await reading.finished;
    await new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve)));
    const whole = document.createElement("div");
    whole.append(globalThis.markdown.render(text));
    return {
      touched,
      tentative,
      html: main.querySelector(".wetink-committed")?.innerHTML ?? "",
      whole: whole.innerHTML,
      open: main.querySelector(".wetink-open")?.textContent,
      scripts: main.querySelectorAll("[onerror]").length,
    };
  });
  expect(shown).toMatchObject({ touched: 0, open: "", scripts: 0 });
  // Between blocks a parser may leave blank lines.
  expect(shown.html.replace(/\s/g, "")).toBe(shown.whole.replace(/\s/g, ""));
  expect(shown.tentative.some((text) => text.includes("wrong"))).toBe(true);
  await page.close();
});
