/** One reading of a run: the text as a reader holds it, and when each character was there. */

import { type Open, Receiver, type ServerEvent } from "wetink/protocol";

export class Reader {
  receiver = new Receiver({ unit: "utf-16" });
  /** The last one; null before the first. */
  open: Open | null = null;
  /** For each character on show, when it appeared there; of what stays, when it appeared for good. */
  readonly shownAt: number[] = [];
  firstVisible: number | null = null;
  firstCommitted: number | null = null;
  erased = 0;
  retractions = 0;
  longestTail = 0;

  /** Committed text of all parts. */
  get committed(): string {
    const { parts } = this.receiver;
    return parts.length === 1 ? (parts[0]?.committed ?? "") : parts.map((part) => part.committed).join("");
  }

  get tail(): string {
    return this.receiver.tail;
  }

  /** Of what is kept, how much was taken back on the way: normalized erasure. */
  get erasure(): number {
    return this.erased / Math.max(1, this.committed.length);
  }

  /** The event as it was `t` milliseconds after the run began. */
  apply(t: number, event: ServerEvent): void {
    if (event.type === "open") {
      this.receiver.interrupted();
      this.open = event;
    }
    const change = this.receiver.receive(event);
    if (change === null) return;
    if (change.erased !== "") {
      this.shownAt.length -= change.erased.length;
      this.erased += change.erased.length;
      this.retractions += 1;
    }
    for (let i = 0; i < change.appended.length; i += 1) this.shownAt.push(t);
    if (change.appended !== "") this.firstVisible ??= t;
    if (change.committed !== "") this.firstCommitted ??= t;
    this.longestTail = Math.max(this.longestTail, this.tail.length);
  }
}

/** How much earlier, in milliseconds and on average, `one` had each character than `other`. */
export function lead(one: Reader, other: Reader): number {
  const length = Math.min(one.shownAt.length, other.shownAt.length);
  if (length === 0) return 0;
  let sum = 0;
  for (let i = 0; i < length; i += 1) sum += (other.shownAt[i] ?? 0) - (one.shownAt[i] ?? 0);
  return sum / length;
}
