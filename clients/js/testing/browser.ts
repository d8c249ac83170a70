/** A headless Chromium, from npm, and pages that have loaded what a gateway serves as `/wetink.js`. */

import chromium from "@sparticuz/chromium";
import { type Browser, chromium as launcher, type Page } from "playwright-core";

import type * as Wetink from "../core/src/page.js";

declare global {
  /** In a page that `libraryPage` opened. */
  var wetink: typeof Wetink;
}

export async function launch(): Promise<Browser> {
  const executablePath = await chromium.executablePath();
  // Without root there is no sandbox; of the package's other arguments one process for all pages
  // would end with the first of them.
  return launcher.launch({ executablePath, args: ["--no-sandbox"] });
}

/** An empty page of the gateway's origin with the library in `wetink`, and one element, `main`. */
export async function libraryPage(browser: Browser, url: string): Promise<Page> {
  const page = await browser.newPage();
  await page.goto(`${url}/healthz`);
  await page.setContent("<!doctype html><main></main>");
  await page.addScriptTag({
    type: "module",
    content: "import * as library from '/wetink.js'; globalThis.wetink = library;",
  });
  await page.waitForFunction(() => "wetink" in globalThis);
  return page;
}
