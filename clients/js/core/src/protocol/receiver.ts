/**
 * The receiving side of one stream, sans-I/O (SPEC section 5).
 *
 * It lives through any number of attachments: `interrupted` ends one, the next `open` continues.
 */

import { type Cursor, formatCursor, type Mark, parseCursor } from "./cursor.js";
import { LocalProtocolError, RemoteProtocolError, type WetinkError } from "./errors.js";
import {
  type Commit,
  decodeEvent,
  type Finish,
  type Open,
  type Part,
  PROTOCOL_VERSION,
  type ServerEvent,
  type StreamError,
} from "./events.js";
import { follow, type State } from "./transitions.js";
import { lengthIn, type OffsetUnit } from "./units.js";
import { type PartText, ReceivedPart, requireAt } from "./received.js";

/**
 * What an event did to the visible text: first `erased` vanished from its end, then `appended`
 * came. `committed` is the text that became final, visible before or not.
 */
export interface Change {
  readonly committed: string;
  readonly erased: string;
  /** Why text vanished; null with `erased` text: a new attachment began without the old tail. */
  readonly cause: string | null;
  readonly appended: string;
}

/** Why reading ended: the server's `error`, or this reader's own verdict on what it sent. */
export interface Failure {
  readonly code: string;
  readonly message: string;
  /** Trying again may help: reattaching at the cursor, or where the stream has `ended`, repeating its request. */
  readonly retryable: boolean;
  /** The stream itself has failed. */
  readonly ended: boolean;
  /** How long the server asks to be left alone, in milliseconds. */
  readonly retryAfterMs: number | null;
}

/** What must hold for a finished stream: SHA-256 over `text` as UTF-8, in lower-case hex. */
export interface DigestClaim {
  readonly text: string;
  readonly digest: string;
}

export interface ReceiverOptions {
  /** What the attachment asked for as `offsets`. */
  readonly unit?: OffsetUnit | undefined;
  /** Where a reader resumes that kept nothing of the stream but this. */
  readonly cursor?: string | undefined;
  /** Committed text up to `cursor` of its part, where the reader kept that too. */
  readonly held?: string | undefined;
}

/** What a reader holds of one stream. A peer's fault never throws: it sets `failure`. */
export class Receiver {
  readonly unit: OffsetUnit;
  readonly #held: string;
  /** All the text from the beginning is held, so the digest can be checked. */
  readonly #whole: boolean;
  readonly #parts: ReceivedPart[] = [];
  #state: State = "connecting";
  #stream: string | null = null;
  #cursor: Cursor | null;
  #failure: Failure | null = null;
  #finish: Finish | null = null;

  /**
   * Throws `RequestError` (`bad_cursor`), and `LocalProtocolError` if `held` does not end at
   * `cursor`.
   */
  constructor({ unit = "codepoint", cursor, held }: ReceiverOptions = {}) {
    this.unit = unit;
    this.#held = held ?? "";
    this.#cursor = cursor === undefined ? null : parseCursor(cursor);
    const { part, offset } = this.#cursor ?? { part: 0, offset: 0 };
    if (held !== undefined && lengthIn(held, unit) !== offset) {
      throw new LocalProtocolError(`the text held does not end at offset ${offset}`);
    }
    this.#whole = part === 0 && (held !== undefined || offset === 0);
  }

  get state(): State {
    return this.#state;
  }

  /** The stream's name, from the first `open` on. */
  get stream(): string | null {
    return this.#stream;
  }

  /** From the part of the first `open` on. */
  get parts(): readonly PartText[] {
    return this.#parts;
  }

  get failure(): Failure | null {
    return this.#failure;
  }

  get finish(): Finish | null {
    return this.#finish;
  }

  /** Where to resume; null before the first `open` of a reader that began without one. */
  get cursor(): string | null {
    return this.#cursor === null ? null : formatCursor(this.#cursor);
  }

  /** Committed text of the current part. */
  get committed(): string {
    return this.#parts.at(-1)?.committed ?? this.#held;
  }

  get tail(): string {
    return this.#parts.at(-1)?.tail ?? "";
  }

  /** The beginning of the tail, as far as it is verified and only waits for the policy. */
  get verifiedTail(): string {
    return this.#parts.at(-1)?.verifiedTail ?? "";
  }

  /**
   * Apply one event; null if the visible text and the committed text are as before.
   *
   * After a failure, events are ignored until `interrupted`.
   */
  receive(event: ServerEvent): Change | null {
    return this.#judge(() => this.#apply(event));
  }

  /** Apply one event as it came off the wire. An unknown type changes nothing. */
  receiveJson(json: string): Change | null {
    return this.#judge(() => {
      const event = decodeEvent(json);
      return event === null ? null : this.#apply(event);
    });
  }

  /** Reading ends here: the transport found the server at fault, or the caller has given up. */
  reject(fault: WetinkError): Change | null {
    return this.#state === "failed" ? null : this.#fail(fault);
  }

  /**
   * The transport ended. Without `finish` that is never an end of text: reattach at `cursor`.
   *
   * The tail stays visible until the next `open`, which begins without one. A failure stays unless
   * reattaching may help.
   */
  interrupted(): void {
    if (this.#failure !== null && !isResumable(this.#failure)) return;
    this.#state = follow(this.#state, "interruption") ?? this.#state;
    this.#failure = null;
  }

  /**
   * A resume was answered with HTTP 204: the text held is complete. The server is at fault where
   * this reader's cursor does not say that it has had `finish`.
   */
  nothingMore(): void {
    const state = follow(this.#state, "nothing_more");
    if (state === null) {
      throw new LocalProtocolError(`a resume was answered in state ${this.#state}`);
    }
    this.#judge(() => {
      this.#requireFinishWasTold();
      this.#state = state;
      return null;
    });
  }

  /**
   * What must hold for the text of a finished stream, or null if there is nothing to check: it has
   * not finished, or this reader does not hold the text from the beginning. Hashing is
   * asynchronous on this platform, so the machine only says what to check: see `checkDigest`.
   */
  get digestClaim(): DigestClaim | null {
    if (this.#state !== "finished" || this.#finish === null || !this.#whole) return null;
    const text = this.#parts.map((part) => part.committed).join("");
    return { text, digest: this.#finish.digest };
  }

  /** The claim turned out wrong: the stream has failed after all. */
  refuteDigest(): void {
    if (this.digestClaim === null) throw new LocalProtocolError("there is no digest to refute");
    this.#finish = null;
    this.#moveCursor(this.#lastPart());
    this.#lastPart().complete = false;
    this.reject(new RemoteProtocolError("the digest does not match the text received"));
  }

  #judge(step: () => Change | null): Change | null {
    if (this.#state === "failed") return null;
    try {
      return step();
    } catch (error) {
      if (!(error instanceof RemoteProtocolError)) throw error;
      return this.reject(error);
    }
  }

  #apply(event: ServerEvent): Change | null {
    const state = follow(this.#state, event.type);
    if (state === null) throw new RemoteProtocolError(`${event.type} while ${this.#state}`);
    if (event.type === "error") return this.#end(event);
    const change = this.#applyInState(event);
    this.#state = state;
    return change;
  }

  #applyInState(event: Exclude<ServerEvent, StreamError>): Change | null {
    switch (event.type) {
      case "commit":
        return this.#commit(event);
      case "tentative":
        this.#lastPart().append(event);
        return changeOf({ appended: event.text });
      case "retract":
        return changeOf({ erased: this.#lastPart().retract(event), cause: event.cause });
      case "open":
        return this.#open(event);
      case "part":
        this.#beginPart(event);
        return null;
      case "finish":
        this.#complete(event);
        return null;
      case "heartbeat":
        return null;
      default:
        return assertNever(event);
    }
  }

  #open(event: Open): Change | null {
    this.#requireSameTerms(event);
    this.#requireOpenAtCursor(event);
    this.#stream = event.stream;
    this.#cursor = { epoch: event.epoch, part: event.part, offset: event.at, mark: null };
    const part = this.#parts.at(-1);
    if (part !== undefined) {
      const erased = part.dropTail();
      return erased === "" ? null : changeOf({ erased });
    }
    this.#parts.push(new ReceivedPart(event, this.unit, { text: this.#held, watermark: event.at }));
    return null;
  }

  /** Version and unit are those asked for, the stream is the one read so far. */
  #requireSameTerms(event: Open): void {
    if (event.v !== PROTOCOL_VERSION) {
      throw new RemoteProtocolError(`the server speaks version ${event.v}, not ${PROTOCOL_VERSION}`);
    }
    if (event.offsets !== this.unit) {
      throw new RemoteProtocolError(`offsets are in ${event.offsets}, not in ${this.unit}`);
    }
    if (this.#stream !== null && this.#stream !== event.stream) {
      throw new RemoteProtocolError(`this is stream ${event.stream}, expected ${this.#stream}`);
    }
  }

  #requireOpenAtCursor(event: Open): void {
    const { epoch, part, at: offset } = event;
    const expected = formatCursor({ ...(this.#cursor ?? { epoch, part: 0, offset: 0 }), mark: null });
    const found = formatCursor({ epoch, part, offset, mark: null });
    if (found !== expected) throw new RemoteProtocolError(`the stream opens at ${found}, expected ${expected}`, "gap");
  }

  #commit(event: Commit): Change {
    const part = this.#lastPart();
    const { erased, appended } = part.commit(event);
    this.#moveCursor(part);
    return { committed: event.text, erased, cause: event.retract?.cause ?? null, appended };
  }

  #beginPart(event: Part): void {
    const last = this.#lastPart();
    last.requireEmptyTail();
    requireAt(event.part, last.index + 1);
    last.complete = true;
    const part = new ReceivedPart(event, this.unit);
    this.#parts.push(part);
    this.#moveCursor(part);
  }

  #complete(event: Finish): void {
    const part = this.#lastPart();
    part.requireEmptyTail();
    requireAt(event.at, part.watermark);
    part.complete = true;
    this.#finish = event;
    this.#moveCursor(part, "finish");
  }

  #end(event: StreamError): Change | null {
    if (this.#state === "open") requireAt(event.at, this.#lastPart().watermark);
    const { code, message, retryable, ended, retry_after_s: seconds } = event;
    return this.#fail({ code, message, retryable, ended, retryAfterMs: seconds && seconds * 1000 });
  }

  /** Committed text stands; the tail is gone, for a tail without a stream means nothing. */
  #fail(failure: Failure): Change | null {
    this.#state = "failed";
    this.#failure = failure;
    const erased = this.#parts.at(-1)?.dropTail() ?? "";
    return erased === "" ? null : changeOf({ erased, cause: failure.code });
  }

  /** The cursor follows the watermark. */
  #moveCursor(part: ReceivedPart, mark: Mark | null = null): void {
    const epoch = this.#cursor?.epoch ?? 0;
    this.#cursor = { epoch, part: part.index, offset: part.watermark, mark };
  }

  #requireFinishWasTold(): void {
    if (this.#cursor?.mark !== "finish") {
      throw new RemoteProtocolError(`no finish came before ${this.cursor}, yet nothing more shall`);
    }
  }

  /** The transition table lets text events through only after `open`, which begins a part. */
  #lastPart(): ReceivedPart {
    const part = this.#parts.at(-1);
    if (part === undefined) throw new LocalProtocolError("no part before the first open");
    return part;
  }
}

/** Whether reattaching at the cursor may help. */
export function isResumable(failure: Failure): boolean {
  return failure.retryable && !failure.ended;
}

function changeOf(fields: Partial<Change>): Change {
  return { committed: "", erased: "", cause: null, appended: "", ...fields };
}

function assertNever(event: never): never {
  throw new LocalProtocolError(`no handler for ${String(event)}`);
}
