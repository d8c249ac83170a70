/** A run up to some moment: every reading, and what the engine did. */

import { type Entry, type Reading, READINGS } from "./recording.js";
import { Reader } from "./reader.js";
import { Steps } from "./steps.js";

export class Stage {
  readonly readers = Object.fromEntries(
    READINGS.map((reading) => [reading, new Reader()]),
  ) as unknown as Readonly<Record<Reading, Reader>>;
  readonly steps = new Steps();
  /** Of the last event, in milliseconds since the run began. */
  t = 0;

  apply({ t, reading, event }: Entry): void {
    this.t = Math.max(this.t, t);
    this.readers[reading].apply(t, event);
    if (reading === "engine") this.steps.apply(t, event);
  }

  /** Every pane has its last word. */
  get isFinished(): boolean {
    return READINGS.every((reading) => this.readers[reading].receiver.state === "finished");
  }

  /** Committed tokens per second, from the first one on; null before there are two. */
  get tokensPerSecond(): number | null {
    const { origins } = this.steps;
    const [first, last] = [origins[0], origins.at(-1)];
    if (first === undefined || last === undefined || last.verifiedAt <= first.verifiedAt) return null;
    return (1000 * (origins.length - 1)) / (last.verifiedAt - first.verifiedAt);
  }
}
