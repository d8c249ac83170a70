/**
 * npm run build: the packages' `dist` folders, and the bundle that the gateway serves.
 * npm run build -- --check: says whether that bundle, which is committed, is what would be built.
 */

import { execFileSync } from "node:child_process";
import { readFileSync, rmSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

import { buildSync } from "esbuild";

const HERE = fileURLToPath(new URL(".", import.meta.url));
export const SERVED = fileURLToPath(new URL("../../gateway/pages/wetink.js", import.meta.url));

/** `entry`, a file or a module's text, with all it imports, as one minified ES module. */
export function bundle(entry, { external = [] } = {}) {
  const { outputFiles } = buildSync({
    ...(entry.endsWith(".ts") ? { entryPoints: [entry] } : { stdin: { contents: entry, resolveDir: HERE } }),
    absWorkingDir: HERE,
    bundle: true,
    minify: true,
    format: "esm",
    target: "es2022",
    charset: "utf8",
    conditions: ["wetink-source"],
    external,
    write: false,
  });
  return outputFiles[0].text;
}

/** What `SERVED` is to hold. */
export const servedBundle = () => `/* Wetink. Apache-2.0 */\n${bundle("core/src/page.ts")}`;

function main(args) {
  const built = servedBundle();
  if (args.includes("--check")) {
    if (readFileSync(SERVED, "utf8") === built) return;
    throw new Error("gateway/pages/wetink.js is stale: npm --prefix clients/js run build");
  }
  writeFileSync(SERVED, built);
  for (const name of ["core", "react", "ai-sdk"]) {
    rmSync(`${HERE}/${name}/dist`, { recursive: true, force: true });
    execFileSync("npx", ["tsc", "-p", `${name}/tsconfig.build.json`], { cwd: HERE, stdio: "inherit" });
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) main(process.argv.slice(2));
