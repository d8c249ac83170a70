/** Every block of code in the documents runs, as a reader would run it. */

import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

import { build, type Plugin } from "esbuild";
import type { Browser, Page } from "playwright-core";
import { compile } from "svelte/compiler";
import { afterAll, beforeAll, expect, test } from "vitest";

import { launch } from "../testing/browser.js";
import { type Example, examplesIn } from "../testing/examples.js";
import { Gateway } from "../testing/gateway.js";
import { MIXED, MIXED_TEXT } from "../testing/traces.js";

const HERE = fileURLToPath(new URL("..", import.meta.url));
const README = examplesIn("clients/js/core/README.md");
const PAGES = examplesIn("docs/pages.md");
/** The address that examples name. */
const ADDRESS = "http://127.0.0.1:8000";

let gateway: Gateway;
let browser: Browser;
let folder: string;

beforeAll(async () => {
  folder = mkdtempSync(join(HERE, ".examples-"));
  [gateway, browser] = await Promise.all([Gateway.start({ mixed: MIXED }), launch()]);
});

afterAll(async () => {
  rmSync(folder, { recursive: true });
  await Promise.all([gateway.stop(), browser.close()]);
});

function under(heading: string): Example {
  const example = PAGES.find((each) => each.heading === heading);
  if (example === undefined) throw new Error(`docs/pages.md has no code under ${heading}`);
  return example;
}

/** A page of the gateway's origin with this content, and what it logs. */
async function open(html: string): Promise<{ page: Page; logged: string[] }> {
  const page = await browser.newPage();
  const logged: string[] = [];
  page.on("console", (message) => logged.push(message.text()));
  await page.route("**/example", (route) => route.fulfill({ contentType: "text/html", body: html }));
  await page.goto(`${gateway.url}/example`);
  return { page, logged };
}

async function bundled(entry: string, loader: "ts" | "tsx", plugins: Plugin[] = []): Promise<string> {
  const { outputFiles } = await build({
    stdin: { contents: entry, loader, resolveDir: folder },
    bundle: true,
    format: "esm",
    jsx: "automatic",
    conditions: ["wetink-source", "browser"],
    define: { "process.env.NODE_ENV": '"production"' },
    plugins,
    write: false,
  });
  return outputFiles[0]?.text ?? "";
}

/** Waits until the page shows all the text, and nothing else, in its paragraph. */
async function showsText(page: Page): Promise<void> {
  await page.waitForFunction(
    (text) => document.querySelector("p")?.textContent === text,
    MIXED_TEXT,
  );
  await page.close();
}

test("the documents have all their parts", () => {
  const headings = ["A plain page", "Markdown", "React", "Svelte", "The AI SDK", "EventSource"];
  expect(PAGES.map(({ heading }) => heading)).toEqual(headings);
  expect(README.map(({ language }) => language)).toEqual(["ts", "css"]);
});

test("every TypeScript example compiles under strict rules", () => {
  const examples = [...README, ...PAGES].filter(({ language }) => /^tsx?$/.test(language));
  for (const [index, { code, language }] of examples.entries()) {
    writeFileSync(join(folder, `example${index}.${language}`), code);
  }
  const options = { noEmit: true, jsx: "react-jsx", lib: ["es2023", "dom", "dom.iterable", "dom.asynciterable"] };
  writeFileSync(
    join(folder, "tsconfig.json"),
    JSON.stringify({ extends: "../tsconfig.json", compilerOptions: options, include: ["*.ts", "*.tsx"] }),
  );
  let said = "";
  try {
    execFileSync("npx", ["tsc", "-p", folder], { cwd: HERE, encoding: "utf8" });
  } catch (error) {
    said = (error as { stdout: string }).stdout;
  }
  expect(said).toBe("");
  expect(examples).toHaveLength(4);
});

test("the README's example shows a text, and what is wrong with a refused request", async () => {
  const code = (README[0]?.code ?? "").replace(ADDRESS, gateway.url);
  const good = await open("<!doctype html><body></body>");
  await good.page.addScriptTag({ type: "module", content: await bundled(code, "ts") });
  await good.page.waitForFunction((text) => document.body.textContent === text, MIXED_TEXT);
  await expect.poll(() => good.logged).toEqual([`${MIXED_TEXT} stop 0`]);
  await good.page.close();
  const bad = await open("<!doctype html><body></body>");
  const refused = code.replace("max_tokens: 40", "temperature: 99");
  await bad.page.addScriptTag({ type: "module", content: await bundled(refused, "ts") });
  await expect.poll(() => bad.logged.at(-1)).toMatch(/^invalid_value temperature .* false$/);
  await bad.page.close();
});

test("the plain page writes", async () => {
  const { page } = await open(under("A plain page").code);
  await page.click("button");
  await showsText(page);
});

test("the EventSource page writes, and gets sentences", async () => {
  const { page, logged } = await open(under("EventSource").code);
  await showsText(page);
  expect(logged.join("")).toBe(MIXED_TEXT);
});

test("the React component writes", async () => {
  writeFileSync(join(folder, "Chat.tsx"), under("React").code);
  const entry = `
    import { createRoot } from "react-dom/client";
    import Chat from "./Chat.js";
    createRoot(document.querySelector("main")).render(<Chat />);
  `;
  const { page } = await open("<!doctype html><main></main>");
  await page.addScriptTag({ type: "module", content: await bundled(entry, "tsx") });
  await page.click("text=Write");
  await showsText(page);
});

test("the Svelte component writes", async () => {
  writeFileSync(join(folder, "chat.js"), compile(under("Svelte").code, { generate: "client" }).js.code);
  const entry = `
    import { mount } from "svelte";
    import Chat from "./chat.js";
    mount(Chat, { target: document.querySelector("main") });
  `;
  const { page } = await open("<!doctype html><main></main>");
  await page.addScriptTag({ type: "module", content: await bundled(entry, "ts") });
  await page.click("text=Write");
  await showsText(page);
});

test("the Markdown example writes", async () => {
  writeFileSync(join(folder, "show.ts"), under("Markdown").code);
  const entry = `
    import { stream } from "wetink";
    import { show } from "./show.js";
    show(document.querySelector("main"), stream("", { prompt: "Ink is", policy: "retract" }));
  `;
  const { page } = await open("<!doctype html><main></main>");
  await page.addScriptTag({ type: "module", content: await bundled(entry, "ts") });
  await showsText(page);
});

test("the program that uses the AI SDK writes", async () => {
  const code = under("The AI SDK").code.replace(ADDRESS, gateway.url);
  const file = join(folder, "program.mjs");
  await build({
    stdin: { contents: code, loader: "ts", resolveDir: folder },
    bundle: true,
    platform: "node",
    format: "esm",
    conditions: ["wetink-source"],
    external: ["ai"],
    outfile: file,
  });
  const said = execFileSync(process.execPath, [file], { encoding: "utf8" });
  expect(said.trim().split("\n").at(-1)).toBe(MIXED_TEXT);
});
