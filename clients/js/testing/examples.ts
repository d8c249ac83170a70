/** The blocks of code in a Markdown document. */

import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

export interface Example {
  /** The heading above it. */
  readonly heading: string;
  readonly language: string;
  readonly code: string;
}

/** `path` is relative to the repository. */
export function examplesIn(path: string): Example[] {
  const text = readFileSync(fileURLToPath(new URL(`../../../${path}`, import.meta.url)), "utf8");
  const found: Example[] = [];
  let heading = "";
  for (const [, title, language, code] of text.matchAll(/^#+ (.*)$|^```(\w+)\n([\s\S]*?)^```$/gm)) {
    if (title !== undefined) heading = title;
    else found.push({ heading, language: language ?? "", code: code ?? "" });
  }
  return found;
}
