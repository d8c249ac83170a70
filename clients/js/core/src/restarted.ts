/**
 * A stream that ended with its server and is generated once more (SPEC 4.8, 6.6). With the same seed
 * it says the same text, so nobody needs to see it twice.
 */

import { RemoteProtocolError } from "./protocol/errors.js";
import type { Open, ServerEvent } from "./protocol/events.js";
import type { PartText } from "./protocol/received.js";
import type { Receiver } from "./protocol/receiver.js";

export class Restarted {
  /** What was committed before; it stands. Never empty: an `open` begins a part. */
  readonly parts: readonly PartText[];
  #open: Open | null = null;
  #isReached = false;

  constructor(parts: readonly PartText[]) {
    this.parts = parts.map((part) => ({ ...part, tail: "", verifiedTail: "" }));
  }

  get isReached(): boolean {
    return this.#isReached;
  }

  /**
   * What `event`, which `receiver` has just taken, says to one who has seen all this text: nothing
   * before the repeated stream has reached it. Throws where the stream says something else.
   */
  told(event: ServerEvent, receiver: Receiver): ServerEvent[] {
    if (event.type === "open") this.#open = event;
    const [last, now] = [this.parts.at(-1), receiver.parts[this.parts.length - 1]];
    if (last === undefined || now === undefined || now.committed.length < last.committed.length) {
      if (event.type === "finish") this.#requireSameText([]);
      return [];
    }
    this.#requireSameText(receiver.parts);
    this.#isReached = true;
    const { index: part, kind, name, watermark: at } = last;
    const fields = { stream: receiver.stream, t: null, tokens: null };
    const text = now.committed.slice(last.committed.length);
    const events: ServerEvent[] = [];
    if (this.#open !== null) events.push({ ...this.#open, part, kind, name, at });
    if (text !== "") {
      events.push({ ...fields, type: "commit", at, text, retract: null, cut_short: false });
    }
    if (now.tail !== "") {
      const [verified, confidence] = [null, null];
      events.push({ ...fields, type: "tentative", at: now.watermark, text: now.tail, verified, confidence });
    }
    if (event.type === "finish") events.push(event);
    return events;
  }

  #requireSameText(parts: readonly PartText[]): void {
    const same = this.parts.every(({ committed }, index) => {
      const repeated = parts[index]?.committed;
      return index < this.parts.length - 1 ? repeated === committed : repeated?.startsWith(committed);
    });
    if (!same) throw new RemoteProtocolError("the repeated request gave other text");
  }
}
