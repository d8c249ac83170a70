/**
 * npm run bench: what a page has to load, and what its main thread has to do, for Wetink's client and for others.
 *
 * Prints the table of docs/pages.md. One gateway plays the same 900 steps in three seconds to all of
 * them, 300 a second, in turns; each figure is the median of the rounds. Ably's client reads Ably's
 * own service alone: of it only the size is known.
 */

import { gzipSync } from "node:zlib";

import { buildSync } from "esbuild";
import type { Browser } from "playwright-core";

import { launch } from "../testing/browser.js";
import { Gateway } from "../testing/gateway.js";
import { longTrace } from "../testing/traces.js";

const ROUNDS = 5;
const HERE = process.cwd();
const { trace, text: TEXT } = longTrace(450, 1000 / 300);

interface Client {
  readonly name: string;
  /** What a page imports. */
  readonly imports: string;
  /** Shows a generation in `paper` as text, and resolves when it is whole; none: only the size is taken. */
  readonly show?: string;
}

const CLIENTS: readonly Client[] = [
  {
    name: "`wetink`: `stream`, `bindView`, policy `retract`",
    imports: 'import { stream } from "wetink"; import { bindView } from "wetink/dom";',
    show: `const answer = stream("", { model: "text", prompt: "hi", policy: "retract" });
      bindView(paper, answer); await answer.finished;`,
  },
  {
    name: "`wetink`: `connect`, `bindView`, policy `hold`",
    imports: 'import { connect } from "wetink"; import { bindView } from "wetink/dom";',
    show: `const answer = connect("").start({ model: "text", prompt: "hi", policy: "hold" });
      bindView(paper, answer); await answer.finished;`,
  },
  {
    name: "`wetink`, all of it",
    imports: 'import * as wetink from "wetink"; import * as dom from "wetink/dom"; globalThis.all = { wetink, dom };',
  },
  {
    name: "openai-node: `chat.completions`, `textContent +=`",
    imports: 'import OpenAI from "openai";',
    show: `const client = new OpenAI({ baseURL: location.origin + "/v1", apiKey: "none", dangerouslyAllowBrowser: true });
      const answer = await client.chat.completions.create({ model: "text", stream: true, messages: [{ role: "user", content: "hi" }] });
      for await (const { choices } of answer) paper.textContent += choices[0]?.delta.content ?? "";`,
  },
  {
    name: "AI SDK: `streamText`, `textContent +=`",
    imports: 'import { streamText } from "ai"; import { createOpenAICompatible } from "@ai-sdk/openai-compatible";',
    show: `const provider = createOpenAICompatible({ name: "wetink", baseURL: location.origin + "/v1" });
      const { textStream } = streamText({ model: provider("text"), prompt: "hi" });
      for await (const piece of textStream) paper.textContent += piece;`,
  },
  { name: "Ably: `Realtime`", imports: 'import { Realtime } from "ably"; globalThis.all = Realtime;' },
];

function bundle({ imports, show }: Client): string {
  const contents = `${imports} globalThis.show = async (paper) => { ${show ?? ""} };`;
  const { outputFiles } = buildSync({
    stdin: { contents, resolveDir: `${HERE}/bench` },
    bundle: true,
    minify: true,
    format: "iife",
    target: "es2022",
    conditions: ["wetink-source", "browser"],
    define: { "process.env.NODE_ENV": '"production"' },
    write: false,
  });
  return outputFiles[0]?.text ?? "";
}

interface Run {
  /** Milliseconds the main thread was busy. */
  readonly busy: number;
  /** Of them, in layout and style. */
  readonly layout: number;
  /** Between frames: the one that 95 of 100 do not exceed, and the longest. */
  readonly frame95: number;
  readonly longest: number;
}

async function run(browser: Browser, url: string, script: string): Promise<Run> {
  const page = await browser.newPage();
  await page.goto(`${url}/healthz`);
  await page.setContent("<!doctype html><p></p>");
  await page.addScriptTag({ content: script });
  const devtools = await page.context().newCDPSession(page);
  await devtools.send("Performance.enable");
  const measure = async (): Promise<Map<string, number>> => {
    const { metrics } = await devtools.send("Performance.getMetrics");
    return new Map(metrics.map(({ name, value }) => [name, value * 1000]));
  };
  const before = await measure();
  const { text, frames } = await page.evaluate(async () => {
    const paper = document.querySelector("p") as HTMLElement;
    const times: number[] = [];
    let isOver = false;
    requestAnimationFrame(function frame(now) {
      times.push(now);
      if (!isOver) requestAnimationFrame(frame);
    });
    await (globalThis as unknown as { show(paper: HTMLElement): Promise<void> }).show(paper);
    isOver = true;
    await new Promise(requestAnimationFrame);
    for (const struck of paper.querySelectorAll("del")) struck.remove();
    return { text: paper.textContent, frames: times };
  });
  const after = await measure();
  await page.close();
  if (text !== TEXT) throw new Error(`the page shows ${text.length} of ${TEXT.length} units`);
  const spans = frames.slice(1).map((time, index) => time - (frames[index] ?? time)).toSorted((a, b) => a - b);
  const spent = (name: string): number => (after.get(name) ?? 0) - (before.get(name) ?? 0);
  return {
    busy: spent("TaskDuration"),
    layout: spent("LayoutDuration") + spent("RecalcStyleDuration"),
    frame95: spans[Math.floor(spans.length * 0.95)] ?? 0,
    longest: spans.at(-1) ?? 0,
  };
}

function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)] ?? 0;
}

async function main(): Promise<void> {
  const [gateway, browser] = await Promise.all([Gateway.start({ text: trace }), launch()]);
  const scripts = CLIENTS.map(bundle);
  const runs = CLIENTS.map((): Run[] => []);
  for (let round = 0; round < ROUNDS; round += 1) {
    for (const [index, { show }] of CLIENTS.entries()) {
      if (show !== undefined) runs[index]?.push(await run(browser, gateway.url, scripts[index] ?? ""));
    }
  }
  await Promise.all([browser.close(), gateway.stop()]);
  const rows = CLIENTS.map(({ name, show }, index) => {
    const bytes = gzipSync(scripts[index] ?? "", { level: 9 }).length;
    const of = (field: keyof Run): string =>
      show === undefined ? "–" : median((runs[index] ?? []).map((each) => each[field])).toFixed(0);
    return `| ${name} | ${(bytes / 1024).toFixed(1)} | ${of("busy")} | ${of("layout")} | ${of("frame95")} | ${of("longest")} |`;
  });
  const head = "| client | kB gzipped | main thread busy, ms | of that layout and style | 95 % of frames within, ms | longest frame, ms |";
  process.stdout.write(`${[head, "|---|---|---|---|---|---|", ...rows].join("\n")}\n`);
}

await main();
