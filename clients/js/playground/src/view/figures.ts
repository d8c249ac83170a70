/** What is told of a run in numbers. */

import { lead } from "../run/reader.js";
import type { PaneName } from "../run/recording.js";
import type { Stage } from "../run/stage.js";
import { type Fact, percent, seconds } from "./page.js";
import { FELT_MS } from "./verdict.js";

/** Of the engine; none before its first check. */
export function figuresOf(stage: Stage): Fact[] {
  const { steps, tokensPerSecond, readers } = stage;
  if (steps.list.length === 0) return [];
  return [
    ["speed", tokensPerSecond === null ? "–" : `${tokensPerSecond.toFixed(tokensPerSecond < 10 ? 1 : 0)} tok/s`],
    ["guesses right", percent(steps.acceptance)],
    ["erasure (NE)", readers.retract.erasure.toFixed(2)],
    ["longest tail", String(readers.retract.longestTail)],
    ["tokens per check", (steps.origins.length / steps.list.length).toFixed(1)],
  ];
}

/** Where guesses come from that another model than the one asked makes; "" where none does. */
export function sourceOf(stage: Stage): string {
  const { draft_model: drafts = null, model = "" } = stage.readers.engine.open ?? {};
  return drafts === null ? "" : `The guesses come from another model, ${drafts}; ${model} checks them.`;
}

/** Of one pane. */
export function factsOf(stage: Stage, name: PaneName): Fact[] {
  const reader = stage.readers[name];
  const facts: Fact[] = [
    ["first text", seconds(reader.firstVisible)],
    ["first checked text", seconds(reader.firstCommitted)],
  ];
  if (reader.firstVisible === null) return facts;
  const ahead = name === "hold" ? 0 : lead(reader, stage.readers.hold);
  if (Math.abs(ahead) >= FELT_MS) {
    facts.push([ahead > 0 ? "ahead of hold" : "behind hold", seconds(Math.abs(ahead))]);
  }
  facts.push(
    reader.erased === 0 ? ["taken back", "nothing"] : ["taken back", `${reader.erased} letters`, true],
  );
  return facts;
}
