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

/** Of one pane. */
export function factsOf(stage: Stage, name: PaneName): Fact[] {
  const reader = stage.readers[name];
  if (reader.firstVisible === null) return [["first text", "–"]];
  const facts: Fact[] = [];
  const ahead = name === "hold" ? 0 : lead(reader, stage.readers.hold);
  // The first word is the model's own, there is no guess yet: retract has it when hold has it.
  if (ahead < FELT_MS) facts.push(["first text", seconds(reader.firstVisible)]);
  if (Math.abs(ahead) >= FELT_MS) {
    facts.push([ahead > 0 ? "ahead of hold" : "behind hold", seconds(Math.abs(ahead))]);
  }
  facts.push(
    reader.erased === 0 ? ["taken back", "nothing"] : ["taken back", `${reader.erased} letters`, true],
  );
  return facts;
}
