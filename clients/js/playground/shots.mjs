/**
 * node playground/shots.mjs: pictures of the page for docs/playground, and a recording in motion,
 * from `wetink serve --demo` with the embedded model.
 */

import { spawn } from "node:child_process";
import { mkdirSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

import chromium from "@sparticuz/chromium";
import { chromium as launcher } from "playwright-core";
import { PNG } from "pngjs";

/** A CommonJS package that Node does not see the names of. */
const { applyPalette, GIFEncoder, quantize } = createRequire(import.meta.url)("gifenc");
const WETINK = fileURLToPath(new URL("../../../.venv/bin/wetink", import.meta.url));
const FOLDER = fileURLToPath(new URL("../../../docs/playground/", import.meta.url));
const DESKTOP = { width: 1440, height: 900 };
const PHONE = { width: 390, height: 844 };
/** Frames are taken while page and animations run so much slower, and shown at full speed. */
const SLOWNESS = 4;
const MOTION_S = 9;
/** Between two frames of the moving picture. */
const FRAME_MS = 60;
const COLOURS = 48;

async function serve() {
  const child = spawn(WETINK, ["serve", "--demo", "--port", "0"], { stdio: ["ignore", "pipe", "inherit"] });
  for await (const line of createInterface({ input: child.stdout })) {
    const url = / at (http:\S+)$/.exec(line)?.[1];
    if (url !== undefined) return { url, stop: () => child.kill() };
  }
  throw new Error("the gateway ended before it served");
}

/** A page that is ready, in its own context; `shot` writes what it shows to docs/playground. */
async function open(browser, url, options) {
  const context = await browser.newContext(options);
  const page = await context.newPage();
  await page.goto(url);
  await page.waitForSelector('#status[data-state="ready"]');
  // All of the page: what is said beside the levers is half of what there is to see.
  const shot = (name) => page.screenshot({ path: `${FOLDER}${name}.png`, fullPage: options.viewport === DESKTOP });
  const until = (pane, length) =>
    page.waitForFunction(
      ([selector, least]) => document.querySelector(selector).textContent.length > least,
      [`#pane-${pane} .text`, length],
    );
  /** What is said over the panes has faded in. */
  const said = () =>
    page.evaluate(() => Promise.all([...document.querySelectorAll(".note")].flatMap((note) => note.getAnimations()).map(({ finished }) => finished)));
  return { page, shot, until, said, close: () => context.close() };
}

async function stills(browser, url) {
  for (const scheme of ["light", "dark"]) {
    const { page, shot, until, said, close } = await open(browser, url, { viewport: DESKTOP, colorScheme: scheme });
    await page.click("#examples button >> nth=1");
    await until("chunk", 100);
    await page.waitForSelector("#pane-retract .ghost span", { state: "attached" });
    await shot(`running-${scheme}`);
    if (scheme === "light") {
      await page.click("#cut");
      await page.waitForSelector('#pane-hold[data-state="cut"]');
      await said();
      await shot("cut");
      await page.waitForSelector('#pane-hold[data-state=""]');
      await page.click("#kill");
      await page.waitForFunction(() => document.querySelector("#pane-hold .note").textContent.startsWith("Engine killed"));
      await said();
      await shot("killed");
    }
    await page.waitForSelector("#verdict:not([hidden])", { timeout: 120_000 });
    await shot(`done-${scheme}`);
    await close();
  }
  const { page, shot, until, close } = await open(browser, url, { viewport: PHONE, hasTouch: true, deviceScaleFactor: 2 });
  await page.click("#examples button >> nth=1");
  await until("chunk", 100);
  await shot("phone");
  await close();
}

/** The recorded answer that the page begins with, as frames of the three panes. */
async function frames(browser, url) {
  const { page, close } = await open(browser, url, { viewport: { width: 1080, height: 900 } });
  const devtools = await page.context().newCDPSession(page);
  await devtools.send("Animation.enable");
  await devtools.send("Animation.setPlaybackRate", { playbackRate: 1 / SLOWNESS });
  await page.locator("#scrub").fill("0");
  await page.selectOption("#speed", String(1 / SLOWNESS));
  const clip = await page.locator(".panes").boundingBox();
  await page.click("#play");
  const taken = [];
  const began = Date.now();
  while (Date.now() - began < MOTION_S * 1000 * SLOWNESS) {
    const png = await page.screenshot({ clip });
    const at = (Date.now() - began) / SLOWNESS;
    if (at - (taken.at(-1)?.at ?? -FRAME_MS) >= FRAME_MS) taken.push({ at, png });
  }
  await close();
  return taken;
}

/** Only what differs from the frame before is in a frame; the rest is transparent. */
function gif(taken) {
  const images = taken.map(({ png }) => PNG.sync.read(png));
  const { width, height } = images[0];
  const sample = Buffer.concat([images[0].data, images.at(-1).data, images[images.length >> 1].data]);
  const palette = quantize(sample, COLOURS);
  const encoder = GIFEncoder();
  let before = null;
  for (const [index, { data }] of images.entries()) {
    const pixels = applyPalette(data, palette);
    const shown = before === null ? pixels : pixels.map((pixel, at) => (pixel === before[at] ? COLOURS : pixel));
    const delay = (taken[index + 1]?.at ?? taken[index].at + 2000) - taken[index].at;
    encoder.writeFrame(shown, width, height, {
      ...(before === null ? { palette: [...palette, ...Array.from({ length: COLOURS + 1 - palette.length }, () => [0, 0, 0])] } : {}),
      delay,
      ...(before === null ? {} : { transparent: true, transparentIndex: COLOURS }),
      dispose: 1,
    });
    before = pixels;
  }
  encoder.finish();
  return encoder.bytes();
}

mkdirSync(FOLDER, { recursive: true });
const gateway = await serve();
const browser = await launcher.launch({ executablePath: await chromium.executablePath(), args: ["--no-sandbox"] });
try {
  writeFileSync(`${FOLDER}playground.gif`, gif(await frames(browser, gateway.url)));
  await stills(browser, gateway.url);
} finally {
  await browser.close();
  gateway.stop();
}
