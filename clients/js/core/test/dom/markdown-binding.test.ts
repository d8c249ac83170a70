/** Which blocks of Markdown are complete, with the parser that the documentation names. */

import * as fc from "fast-check";
import { marked } from "marked";
import { expect, test } from "vitest";

import { completeBlocks } from "../../src/dom/markdown-binding.js";

const blocksOf = (text: string): string[] => marked.lexer(text).map(({ raw }) => raw);

/** Pieces that meet in every way that matters: lists, quotes, fences, tables, headings. */
const anyMarkdown = fc
  .array(
    fc.constantFrom(
      "# Ink\n",
      "- wet\n",
      "- dry\n",
      "  more\n",
      "\n",
      "\n\n",
      "1. one\n",
      "2. two\n",
      "> said\n",
      "words *and* words\n",
      "===\n",
      "---\n",
      "```\ncode\n\n- no list\n```\n",
      "| a | b |\n|---|---|\n| 1 | 2 |\n",
      "    indented\n",
      "-",
      "👩‍👩‍👧‍👦 ",
    ),
    { maxLength: 14 },
  )
  .map((pieces) => pieces.join(""));

test("blocks found complete while a text grows are those of the whole text", () => {
  const property = fc.property(anyMarkdown, (text) => {
    const whole = blocksOf(text);
    fc.pre(whole.join("") === text);
    const found: string[] = [];
    let from = 0;
    for (let end = 1; end <= text.length; end += 1) {
      const rest = text.slice(from, text.lastIndexOf("\n", end - 1) + 1);
      const blocks = blocksOf(rest);
      if (blocks.join("") !== rest) continue;
      const complete = completeBlocks(blocks);
      found.push(...complete);
      from += complete.join("").length;
    }
    expect([...found, ...blocksOf(text.slice(from))]).toEqual(whole);
  });
  fc.assert(property, { numRuns: 100 });
});

test("a text of few blocks has no complete one, whatever blank lines surround them", () => {
  expect(completeBlocks([])).toEqual([]);
  expect(completeBlocks(["\n\n", "- a", "\n\n", "-", "\n"])).toEqual(["\n\n"]);
  expect(completeBlocks(["# a\n", "b", "\n\n", "c"])).toEqual(["# a\n"]);
});
