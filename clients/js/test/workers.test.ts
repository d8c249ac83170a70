/** The library in a web worker of a real browser: no document, no window. */

import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";

import type { Browser } from "playwright-core";
import { afterAll, beforeAll, expect, test } from "vitest";

import { bundle } from "../build.mjs";
import type { Plan } from "../runtimes/checks.js";
import { launch } from "../testing/browser.js";
import { prepare } from "../testing/plan.js";

const WORKER = `
  import { checks } from "./runtimes/checks.ts";
  onmessage = async ({ data }) => postMessage(await checks(data));
`;

let browser: Browser;
let pages: Server;
let origin: string;
let plan: Plan;
let stop: () => Promise<void>;

beforeAll(async () => {
  const worker = bundle(WORKER);
  pages = createServer(({ url }, response) => {
    const isScript = url === "/worker.js";
    response.setHeader("Content-Type", isScript ? "text/javascript" : "text/html");
    response.end(isScript ? worker : "<!doctype html>");
  });
  await new Promise<void>((resolve) => pages.listen(0, "127.0.0.1", resolve));
  origin = `http://127.0.0.1:${(pages.address() as AddressInfo).port}`;
  [browser, { plan, stop }] = await Promise.all([launch(), prepare([origin])]);
});
afterAll(async () => {
  await Promise.all([browser.close(), stop()]);
  pages.close();
});

test("a worker reads by fetch, WebSocket and EventSource, of another origin, with a key", async () => {
  const page = await browser.newPage();
  await page.goto(origin);
  const results = await page.evaluate(
    (data) =>
      new Promise<Record<string, string | null>>((resolve, reject) => {
        const worker = new Worker("/worker.js", { type: "module" });
        worker.addEventListener("message", (event: MessageEvent<Record<string, string | null>>) => resolve(event.data));
        worker.addEventListener("error", ({ message }) => reject(new Error(message)));
        // oxlint-disable-next-line unicorn/require-post-message-target-origin -- that is for windows
        worker.postMessage(data);
      }),
    plan,
  );
  expect(Object.entries(results).filter(([, said]) => said !== null)).toEqual([]);
  expect(Object.keys(results)).toHaveLength(17);
});
