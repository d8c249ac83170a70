/**
 * node playground/frames.mjs [SECONDS]: how smoothly the page draws 300 events a second, and how soon it is there, from
 * Chromium's trace; with more seconds, whether a long answer slows it down.
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
const SECONDS = Number(process.argv[2] ?? 5);
const VISITS = 9;
/** A model's paragraph. */
const WORDS_PER_LINE = 80;
/** What a wait of the scripted backend takes longer than asked. */
const TIMER_MS = 1.2;
const FRAME_MS = 1000 / 60;
/** What the page has done in its thread, none of it within another of these. */
const MAIN_WORK = new Set(["FireAnimationFrame", "EventDispatch", "PrePaint", "Paint", "Layerize", "Commit"]);
const CATEGORIES = ["devtools.timeline", "disabled-by-default-devtools.timeline", "disabled-by-default-devtools.timeline.frame", "toplevel"];

/** As many events a second as asked, on the pane that shows most: a draft, its verdict, a draft… */
function trace() {
  const after_ms = 1000 / EVENTS_PER_S - TIMER_MS;
  const steps = Array.from({ length: (EVENTS_PER_S * SECONDS) / 2 }, (_, n) => {
    const word = ` word${n}${n % WORDS_PER_LINE === 0 ? "\n\n" : ""}`;
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
    return (spent / drawn.filter((ts) => ts >= from && ts < to).length).toFixed(2);
  };
  const tasks = events.filter(({ name, dur }) => name === "RunTask" && (dur ?? 0) > 50_000).length;
  return {
    "events per second (retract pane)": Math.round((1000 * received) / wall),
    "frames drawn per second": Math.round((1000 * drawn.length) / wall),
    "ms between frames, median": quantile(gaps, 0.5).toFixed(1),
    "ms between frames, 95 %": quantile(gaps, 0.95).toFixed(1),
    "ms of our script in a frame, median": quantile(work, 0.5).toFixed(2),
    "ms of our script in a frame, 99 %": quantile(work, 0.99).toFixed(2),
    "ms of script, style and layout a frame, first quarter": busy(drawn[0], drawn[0] + quarter),
    "ms of script, style and layout a frame, last quarter": busy(drawn.at(-1) - quarter, drawn.at(-1)),
    "frames whose script takes over 16.7 ms": work.filter((each) => each > FRAME_MS).length,
    "tasks over 50 ms": tasks,
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

const folder = mkdtempSync(join(tmpdir(), "wetink-traces-"));
writeFileSync(join(folder, "fast.json"), JSON.stringify(trace()));
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
  paints.sort((one, other) => one - other);
  const painted = `${quantile(paints, 0.5).toFixed(0)} (${paints[0].toFixed(0)} to ${paints.at(-1).toFixed(0)})`;
  const page = await browser.newPage({ viewport: { width: 1440, height: 900 } });
  await page.goto(`${url}/#prompt=fast`);
  await page.waitForSelector('#status[data-state="ready"]');
  await browser.startTracing(page, { categories: CATEGORIES });
  const began = Date.now();
  await page.click("#run");
  await page.waitForSelector("#verdict:not([hidden])", { timeout: 120_000 });
  const wall = Date.now() - began;
  const { traceEvents } = JSON.parse((await browser.stopTracing()).toString());
  const [download] = await Promise.all([page.waitForEvent("download", { timeout: 90_000 }), page.click("#share-file")]);
  const file = await download.createReadStream();
  let recording = "";
  for await (const piece of file) recording += piece;
  const received = recording.split("\n").filter((row) => row.includes('"retract",{')).length;
  const figures = { "ms to the first paint, median of nine visits": painted, ...report(traceEvents, wall, received) };
  for (const [name, value] of Object.entries(figures)) {
    process.stdout.write(`${name.padEnd(56)}${value}\n`);
  }
} finally {
  await browser.close();
  gateway.kill();
  rmSync(folder, { recursive: true });
}
