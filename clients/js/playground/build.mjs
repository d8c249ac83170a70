/**
 * node playground/build.mjs: what the gateway serves at `/`, into gateway/pages.
 * With --check: says whether what is committed there is what would be built.
 */

import { readFileSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { fileURLToPath } from "node:url";

import { transformSync } from "esbuild";

import { bundle } from "../build.mjs";

const here = (path) => fileURLToPath(new URL(path, import.meta.url));
const PAGES = here("../../../gateway/pages/");
const FONT = createRequire(import.meta.url).resolve("@fontsource/source-serif-4/package.json");
const ofFont = (path) => readFileSync(FONT.replace("package.json", path));

/** File names and contents. */
function built() {
  const css = transformSync(readFileSync(here("style.css"), "utf8"), { loader: "css", minify: true });
  return new Map([
    ["playground.js", Buffer.from(bundle("playground/src/main.ts"))],
    ["playground.css", Buffer.from(css.code)],
    ["index.html", Buffer.from(readFileSync(here("index.html"), "utf8").replaceAll(/\n\s*/g, "\n"))],
    ["wetink.svg", readFileSync(here("wetink.svg"))],
    ["example.json", readFileSync(here("example.json"))],
    ["source-serif-4.woff2", ofFont("files/source-serif-4-latin-400-normal.woff2")],
    ["source-serif-4.LICENSE", ofFont("LICENSE")],
  ]);
}

const isCheck = process.argv.includes("--check");
for (const [name, content] of built()) {
  if (!isCheck) writeFileSync(PAGES + name, content);
  else if (!content.equals(readFileSync(PAGES + name))) {
    throw new Error(`gateway/pages/${name} is stale: node clients/js/playground/build.mjs`);
  }
}
