/**
 * node playground/frames.mjs: how smoothly the page draws 300 events a second, whether a long answer or a long paragraph
 * slows it down, and how soon it is there, from Chromium's trace. Each answer is run several times, in turns; figures are
 * medians. Prints the table of docs/playground.md.
 *
 * Headless, without a graphics card, on whatever else the machine is doing: the compositor's share
 * is larger than on anybody's desk, and every neighbour's work shows. So it says beside the frame rate
 * what the page itself takes of each frame, which is what this code can be blamed for.
 */

import { spawn } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

import chromium from "@sparticuz/chromium";
import { chromium as launcher } from "playwright-core";

const WETINK = fileURLToPath(new URL("../../../.venv/bin/wetink", import.meta.url));
const EVENTS_PER_S = 300;
const VISITS = 9;
const ROUNDS = 3;
/** A model's paragraph. */
const PARAGRAPH = 80;
const ANSWERS = [
  { name: "4 s", seconds: 4, paragraph: PARAGRAPH },
  { name: "8 s", seconds: 8, paragraph: PARAGRAPH },
  { name: "12 s", seconds: 12, paragraph: PARAGRAPH },
  { name: "12 s, one paragraph", seconds: 12, paragraph: Infinity },
];
/** What a wait of the scripted backend takes longer than asked. */
const TIMER_MS = 1.2;
const FRAME_MS = 1000 / 60;
/** What the page has done in its thread, none of it within another of these. */
const MAIN_WORK = new Set(["FireAnimationFrame", "EventDispatch", "PrePaint", "Paint", "Layerize", "Commit"]);
const CATEGORIES = ["devtools.timeline", "disabled-by-default-devtools.timeline", "disabled-by-default-devtools.timeline.frame", "toplevel"];

/** As many events a second as asked, on the pane that shows most: a draft, its verdict, a draft… */
function trace({ seconds, paragraph }) {
  const after_ms = 1000 / EVENTS_PER_S - TIMER_MS;
  const steps = Array.from({ length: (EVENTS_PER_S * seconds) / 2 }, (_, n) => {
    const word = ` word${n}${(n + 1) % paragraph === 0 ? "\n\n" : ""}`;
    return [
      { after_ms, event: "drafted", tail: `${word} wrong`, tokens: [{ id: 1, n: word.length }, { id: 2, n: 6 }] },
      { after_ms, event: "verified", text: word, cause: "draft_rejected", tokens: [{ id: 1, n: word.length }] },
    ];
  });
  return [...steps.flat(), { event: "finished", reason: "stop" }];
}

function quantile(sorted, share) {
  return sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] ?? Number.NaN;
}

function report(events, wall, received) {
  const drawn = events.filter(({ name }) => name === "DrawFrame").map(({ ts }) => ts / 1000).toSorted((a, b) => a - b);
  const gaps = drawn.slice(1).map((ts, index) => ts - drawn[index]).toSorted((a, b) => a - b);
  const work = events.filter(({ name }) => name === "FireAnimationFrame").map(({ dur }) => (dur ?? 0) / 1000).toSorted((a, b) => a - b);
  const quarter = (drawn.at(-1) - drawn[0]) / 4;
  const busy = (from, to) => {
    const within = ({ ts }) => ts / 1000 >= from && ts / 1000 < to;
    const spent = events.filter((event) => MAIN_WORK.has(event.name) && within(event)).reduce((sum, { dur }) => sum + (dur ?? 0) / 1000, 0);
    return spent / drawn.filter((ts) => ts >= from && ts < to).length;
  };
  return {
    "events per second on the retract pane (one connection of four)": (1000 * received) / wall,
    "frames per second": (1000 * drawn.length) / wall,
    "95 % of frames within, ms": quantile(gaps, 0.95),
    "the page's script in the median frame, ms": quantile(work, 0.5),
    "script, style and layout a frame in the first quarter, ms": busy(drawn[0], drawn[0] + quarter),
    "the same in the last quarter, ms": busy(drawn.at(-1) - quarter, drawn.at(-1)),
    "frames whose script takes over 16.7 ms": work.filter((each) => each > FRAME_MS).length,
  };
}

/** Milliseconds from a visitor's coming to the first text, in a browser that has never been here. */
async function firstPaint(browser, url) {
  const context = await browser.newContext({ viewport: { width: 1440, height: 900 } });
  const page = await context.newPage();
  await page.goto(url);
  const ms = await page.evaluate(
    () =>
      new Promise((resolve) => {
        new PerformanceObserver((list) => {
          const [paint] = list.getEntriesByName("first-contentful-paint");
          if (paint !== undefined) resolve(paint.startTime);
        }).observe({ type: "paint", buffered: true });
      }),
  );
  await context.close();
  return ms;
}

/** One answer, from the click to its verdict. */
async function run(browser, url, { name }) {
  const page = await browser.newPage({ viewport: { width: 1440, height: 900 } });
  await page.goto(`${url}/#${new URLSearchParams({ prompt: "fast", model: name })}`);
  await page.waitForSelector('#status[data-state="ready"]');
  await browser.startTracing(page, { categories: CATEGORIES });
  const began = Date.now();
  await page.click("#run");
  await page.waitForSelector("#verdict:not([hidden])", { timeout: 120_000 });
  const wall = Date.now() - began;
  const { traceEvents } = JSON.parse((await browser.stopTracing()).toString());
  const [download] = await Promise.all([page.waitForEvent("download", { timeout: 90_000 }), page.click("#share-file")]);
  let recording = "";
  for await (const piece of await download.createReadStream()) recording += piece;
  await page.close();
  return report(traceEvents, wall, recording.split("\n").filter((line) => line.includes('"retract",{')).length);
}

function median(values) {
  return quantile(values.toSorted((one, other) => one - other), 0.5);
}

function row(cells) {
  process.stdout.write(`| ${cells.join(" | ")} |\n`);
}

const folder = mkdtempSync(join(tmpdir(), "wetink-traces-"));
for (const answer of ANSWERS) writeFileSync(join(folder, `${answer.name}.json`), JSON.stringify(trace(answer)));
const gateway = spawn(WETINK, ["serve", "--trace", folder, "--port", "0"], { stdio: ["ignore", "pipe", "inherit"] });
const browser = await launcher.launch({ executablePath: await chromium.executablePath(), args: ["--no-sandbox"] });
try {
  let url = "";
  for await (const line of createInterface({ input: gateway.stdout })) {
    url = / at (http:\S+)$/.exec(line)?.[1] ?? "";
    if (url !== "") break;
  }
  const paints = [];
  for (let visit = 0; visit < VISITS; visit += 1) paints.push(await firstPaint(browser, url));
  process.stdout.write(
    `first paint, ms, median of ${VISITS} visits: ${median(paints).toFixed(0)} (${Math.min(...paints).toFixed(0)} to ${Math.max(...paints).toFixed(0)})\n\n`,
  );
  const runs = ANSWERS.map(() => []);
  for (let round = 0; round < ROUNDS; round += 1) {
    for (const [index, answer] of ANSWERS.entries()) runs[index].push(await run(browser, url, answer));
  }
  row(["", ...ANSWERS.map(({ name }) => name)]);
  row(["---", ...ANSWERS.map(() => "---")]);
  row(["words in the answer", ...ANSWERS.map(({ seconds }) => (EVENTS_PER_S * seconds) / 2)]);
  for (const name of Object.keys(runs[0][0])) {
    row([name, ...runs.map((of) => Number(median(of.map((each) => each[name])).toFixed(name.endsWith("ms") ? 1 : 0)))]);
  }
} finally {
  await browser.close();
  gateway.kill();
  rmSync(folder, { recursive: true });
}
