/**
 * One part of a stream as a reader holds it: committed text and a tentative tail (SPEC section 4).
 *
 * Every rule an event must keep against the text already held is checked here and nowhere else.
 * A broken rule throws `RemoteProtocolError` and leaves the view as it was.
 */

import { RemoteProtocolError } from "./errors.js";
import type { Commit, Retraction, Tentative } from "./events.js";
import { indexAt, lengthIn, type OffsetUnit } from "./units.js";

export class PartView {
  readonly kind: string;
  readonly name: string | null;
  readonly #unit: OffsetUnit;
  #committed: string;
  #tail = "";
  // Lengths in `unit`, kept so that an event costs its own text and the tail, not the whole part.
  #committedLength: number;
  #tailLength = 0;

  /** `length` is the length of `committed` in `unit`. */
  constructor(
    kind: string,
    name: string | null,
    unit: OffsetUnit,
    committed = "",
    length = lengthIn(committed, unit),
  ) {
    this.kind = kind;
    this.name = name;
    this.#unit = unit;
    this.#committed = committed;
    this.#committedLength = length;
  }

  get committed(): string {
    return this.#committed;
  }

  get tail(): string {
    return this.#tail;
  }

  /** The commit watermark, in the attachment's unit. */
  get watermark(): number {
    return this.#committedLength;
  }

  append(event: Tentative): void {
    const end = this.#committedLength + this.#tailLength;
    if (event.at !== end) throw gap("tentative", event.at, end);
    this.#tail += event.text;
    this.#tailLength += lengthIn(event.text, this.#unit);
  }

  commit(event: Commit): void {
    if (event.at !== this.#committedLength) throw gap("commit", event.at, this.#committedLength);
    const kept = event.retract === null ? this.#tail : this.#cut(event.retract);
    const { text } = event;
    if (!text.startsWith(kept) && !kept.startsWith(text)) {
      throw new RemoteProtocolError("a commit contradicts the tail it should have kept");
    }
    const length = lengthIn(text, this.#unit);
    this.#committed += text;
    this.#committedLength += length;
    this.#setTail(kept.slice(text.length));
  }

  retract(retraction: Retraction): void {
    this.#setTail(this.#cut(retraction));
  }

  /** The tail without what `retraction` takes off its end. */
  #cut(retraction: Retraction): string {
    const { at, n } = retraction;
    const end = this.#committedLength + this.#tailLength;
    if (at + n !== end) throw gap("retract", at + n, end);
    try {
      return this.#tail.slice(0, indexAt(this.#tail, at - this.#committedLength, this.#unit));
    } catch (error) {
      if (error instanceof RangeError) throw new RemoteProtocolError(`retract: ${error.message}`);
      throw error;
    }
  }

  #setTail(tail: string): void {
    this.#tail = tail;
    this.#tailLength = lengthIn(tail, this.#unit);
  }
}

function gap(what: string, at: number, held: number): RemoteProtocolError {
  return new RemoteProtocolError(`${what} at ${at}, where the text held ends at ${held}`, "gap");
}
