/**
 * One part as a reader holds it: committed text, then the tail (SPEC section 5.4).
 *
 * Each rule an event must keep against the text held is checked here, in one function named after
 * it, and throws `RemoteProtocolError` before anything has changed.
 */

import { RemoteProtocolError } from "./errors.js";
import type { Commit, Retraction, Tentative } from "./events.js";
import { indexAt, lengthIn, type OffsetUnit } from "./units.js";

/** What a reader may look at. `watermark` is in the attachment's unit; text is text. */
export interface PartText {
  readonly index: number;
  readonly kind: string;
  readonly name: string | null;
  /** Nothing more will come: a part may be acted upon only now. */
  readonly complete: boolean;
  /** Committed text, as far as this reader has received it. */
  readonly committed: string;
  readonly tail: string;
  readonly watermark: number;
  /** The beginning of the tail, as far as it is verified and only waits for the policy. */
  readonly verifiedTail: string;
}

export class ReceivedPart implements PartText {
  readonly index: number;
  readonly kind: string;
  readonly name: string | null;
  readonly #unit: OffsetUnit;
  complete = false;
  #committed: string;
  #watermark: number;
  /** The tail before this offset will not be taken back. */
  #verified: number;
  #tail = "";
  // Kept, so that an event costs its own text and the tail, never the whole part.
  #tailLength = 0;

  constructor(
    begun: { readonly part: number; readonly kind: string; readonly name: string | null },
    unit: OffsetUnit,
    /** `text` is committed up to `watermark`, or "" for a reader that did not keep it. */
    held: { readonly text: string; readonly watermark: number } = { text: "", watermark: 0 },
  ) {
    this.index = begun.part;
    this.kind = begun.kind;
    this.name = begun.name;
    this.#unit = unit;
    this.#committed = held.text;
    this.#watermark = held.watermark;
    this.#verified = held.watermark;
  }

  get committed(): string {
    return this.#committed;
  }

  get tail(): string {
    return this.#tail;
  }

  get watermark(): number {
    return this.#watermark;
  }

  get verifiedTail(): string {
    return this.#tail.slice(0, this.#indexIn(this.#tail, this.#verified, "verified"));
  }

  append(event: Tentative): void {
    requireAt(event.at, this.#watermark + this.#tailLength);
    const tail = this.#tail + event.text;
    if (event.verified !== null) {
      this.#requireVerifiedWithinTail(event.verified, tail);
      this.#verified = event.verified;
    }
    this.#setTail(tail);
  }

  /** Returns what vanished. */
  retract(retraction: Retraction): string {
    const kept = this.#kept(retraction);
    const erased = this.#tail.slice(kept.length);
    this.#setTail(kept);
    return erased;
  }

  /** Returns what vanished and what became visible. */
  commit(event: Commit): { erased: string; appended: string } {
    requireAt(event.at, this.#watermark);
    const kept = event.retract === null ? this.#tail : this.#kept(event.retract);
    requireCommittedTextContinuesTail(event.text, kept);
    const erased = this.#tail.slice(kept.length);
    this.#committed += event.text;
    this.#watermark += lengthIn(event.text, this.#unit);
    this.#verified = Math.max(this.#verified, this.#watermark);
    this.#setTail(kept.slice(event.text.length));
    return { erased, appended: event.text.slice(kept.length) };
  }

  /** Returns what vanished. */
  dropTail(): string {
    const tail = this.#tail;
    this.#verified = this.#watermark;
    this.#setTail("");
    return tail;
  }

  requireEmptyTail(): void {
    if (this.#tail !== "") throw new RemoteProtocolError("the tail is not empty");
  }

  /** The tail that a retraction leaves. */
  #kept(retraction: Retraction): string {
    requireAt(retraction.at + retraction.n, this.#watermark + this.#tailLength);
    this.#requireRetractionSparesVerifiedText(retraction);
    return this.#tail.slice(0, this.#requireRetractionBeginsInTail(retraction));
  }

  #requireRetractionSparesVerifiedText({ at }: Retraction): void {
    if (at < this.#verified) {
      throw new RemoteProtocolError(
        `the retraction at ${at} takes back text verified up to ${this.#verified}`,
      );
    }
  }

  /** `verified` never falls, and names a place in the tail, not inside a code point. */
  #requireVerifiedWithinTail(verified: number, tail: string): void {
    if (verified < this.#verified) {
      throw new RemoteProtocolError(`verified fell from ${this.#verified} to ${verified}`);
    }
    this.#indexIn(tail, verified, "verified");
  }

  /** Committed text is never taken back, no code point is ever cut. */
  #requireRetractionBeginsInTail(retraction: Retraction): number {
    return this.#indexIn(this.#tail, retraction.at, "retraction");
  }

  #indexIn(tail: string, at: number, what: string): number {
    const index = indexAt(tail, at - this.#watermark, this.#unit);
    if (index === null) throw new RemoteProtocolError(`${what} at ${at}: no code point of the tail begins or ends there`);
    return index;
  }

  #setTail(tail: string): void {
    this.#tail = tail;
    this.#tailLength = lengthIn(tail, this.#unit);
  }
}

/** `at` is exactly where the text held ends: nothing was lost, nothing comes twice. */
export function requireAt(at: number, held: number): void {
  if (at !== held) throw new RemoteProtocolError(`the event applies at ${at}, the text held ends at ${held}`, "gap");
}

function requireCommittedTextContinuesTail(text: string, kept: string): void {
  if (!text.startsWith(kept) && !kept.startsWith(text)) {
    throw new RemoteProtocolError("the committed text rewrites the tail without a retraction");
  }
}
