/**
 * Incremental parser of server-sent events (SPEC section 7.2.4; WHATWG HTML, section 9.2).
 *
 * Bytes or (well-formed) strings in, events out; any chunking gives the same events. It never throws at its
 * caller: what cannot be accepted sets `failure`, and nothing more comes until `reset()`.
 */

import { RemoteProtocolError } from "./errors.js";

/** The longest event a reader accepts: a resume delivers all missed text as one commit. */
export const MAX_EVENT_BYTES = 16 * 1024 * 1024;

export interface SseEvent {
  /** `message` where the stream names no type. */
  readonly event: string;
  readonly data: string;
  /** The last id the stream has set so far, not this event's alone; null before the first. */
  readonly id: string | null;
}

export interface SseParserOptions {
  /** Most bytes held of one event: its data so far and its unfinished line. */
  readonly maxEventBytes?: number;
}

const LF = 0x0a;
const CR = 0x0d;
const SPACE = 0x20;
const COLON = 0x3a;
const BOM = [0xef, 0xbb, 0xbf];
/** Of "event" and "retry"; a longer name is none the standard knows. */
const LONGEST_NAME = 5;
/** Most lines end in the chunk they began in; what is kept of the others is short. */
const LINE_CAPACITY = 256;
/** Longer waits than a day are nonsense. */
const RETRY = /^[0-9]{1,8}$/;
/** Where a string chunk was cut inside a surrogate pair. */
const CUT_PAIR = /[\uD800-\uDBFF]$/;

export class SseParser {
  readonly #maxEventBytes: number;
  readonly #encoder = new TextEncoder();
  // Lines are decoded whole: a line end is never inside a character, so no chunk cuts one. Invalid
  // bytes are the server's fault, U+FFFD is never invented.
  readonly #decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
  #lastEventId: string | null = null;
  #retry: number | null = null;

  #failure: RemoteProtocolError | null = null;
  #atStart = true;
  /** The last byte was CR: an LF that comes next belongs to it. */
  #afterCr = false;
  /** First half of a surrogate pair at the end of the last string. */
  #half = "";
  /** The line that has not ended yet: the first `#lineBytes` of this. */
  #line = new Uint8Array(LINE_CAPACITY);
  #lineBytes = 0;
  #event = "";
  #id: string | null = null;
  #data: string[] = [];
  #dataBytes = 0;

  constructor(options: SseParserOptions = {}) {
    this.#maxEventBytes = options.maxEventBytes ?? MAX_EVENT_BYTES;
  }

  /** Where to resume: set when an event is complete, never by half of one. */
  get lastEventId(): string | null {
    return this.#lastEventId;
  }

  /** Milliseconds to wait before a reconnect, as last set by the stream. */
  get retry(): number | null {
    return this.#retry;
  }

  get failure(): RemoteProtocolError | null {
    return this.#failure;
  }

  /** The events completed by `chunk`; what it leaves unfinished waits for the next one. */
  feed(chunk: Uint8Array | string): SseEvent[] {
    const events: SseEvent[] = [];
    if (this.#failure !== null) return events;
    const bytes = typeof chunk === "string" ? this.#encode(chunk) : chunk;
    if (bytes.length === 0) return events;
    try {
      this.#split(bytes, events);
    } catch (error) {
      if (!(error instanceof RemoteProtocolError)) throw error;
      this.reset();
      this.#failure = error;
    }
    return events;
  }

  /**
   * A new connection begins: the unfinished event and any failure are forgotten, the last event id
   * and `retry` are kept.
   */
  reset(): void {
    this.#failure = null;
    this.#atStart = true;
    this.#afterCr = false;
    this.#half = "";
    this.#line = new Uint8Array(LINE_CAPACITY);
    this.#lineBytes = 0;
    this.#id = this.#lastEventId;
    this.#clearEvent();
  }

  #encode(chunk: string): Uint8Array {
    const text = this.#half + chunk;
    this.#half = CUT_PAIR.exec(text)?.[0] ?? "";
    return this.#encoder.encode(this.#half === "" ? text : text.slice(0, -1));
  }

  #split(bytes: Uint8Array, events: SseEvent[]): void {
    let start = this.#afterCr && bytes[0] === LF ? 1 : 0;
    this.#afterCr = bytes.at(-1) === CR;
    let cr = bytes.indexOf(CR, start);
    let lf = bytes.indexOf(LF, start);
    while (cr !== -1 || lf !== -1) {
      const end = lf === -1 || (cr !== -1 && cr < lf) ? cr : lf;
      this.#endLine(this.#completed(bytes.subarray(start, end)), events);
      start = end === cr && lf === cr + 1 ? end + 2 : end + 1;
      if (cr !== -1 && cr < start) cr = bytes.indexOf(CR, start);
      if (lf !== -1 && lf < start) lf = bytes.indexOf(LF, start);
    }
    this.#hold(bytes.subarray(start));
  }

  /** The line that `piece` completes. */
  #completed(piece: Uint8Array): Uint8Array {
    if (this.#lineBytes === 0) {
      this.#requireWithinBound(piece.length);
      return piece;
    }
    this.#hold(piece);
    const line = this.#line.subarray(0, this.#lineBytes);
    this.#lineBytes = 0;
    return line;
  }

  /** Copy `piece` to the unfinished line. */
  #hold(piece: Uint8Array): void {
    const length = this.#lineBytes + piece.length;
    this.#requireWithinBound(length);
    if (length > this.#line.length) {
      const longer = new Uint8Array(Math.max(length, 2 * this.#line.length));
      longer.set(this.#line.subarray(0, this.#lineBytes));
      this.#line = longer;
    }
    this.#line.set(piece, this.#lineBytes);
    this.#lineBytes = length;
  }

  #requireWithinBound(lineBytes: number): void {
    if (this.#dataBytes + lineBytes > this.#maxEventBytes) {
      throw new RemoteProtocolError(`an event exceeds ${this.#maxEventBytes} bytes`);
    }
  }

  #endLine(bytes: Uint8Array, events: SseEvent[]): void {
    const line = this.#atStart && startsWithBom(bytes) ? bytes.subarray(BOM.length) : bytes;
    this.#atStart = false;
    if (line.length === 0) {
      this.#dispatch(events);
      return;
    }
    if (line[0] === COLON) return; // a comment
    const colon = line.indexOf(COLON);
    const nameEnd = colon === -1 ? line.length : colon;
    const valueStart = line[nameEnd + 1] === SPACE ? nameEnd + 2 : nameEnd + 1;
    const name = nameEnd > LONGEST_NAME ? "" : String.fromCharCode(...line.subarray(0, nameEnd));
    this.#field(name, line.subarray(valueStart));
  }

  #field(name: string, bytes: Uint8Array): void {
    const value = this.#decode(bytes);
    switch (name) {
      case "event":
        this.#event = value;
        break;
      case "data":
        this.#data.push(value);
        // With the line break that joins it to the next, so that empty lines count too.
        this.#dataBytes += bytes.length + 1;
        break;
      case "id":
        if (!value.includes("\0")) this.#id = value;
        break;
      case "retry":
        if (RETRY.test(value)) this.#retry = Number(value);
        break;
      default: // unknown fields are ignored
    }
  }

  #decode(bytes: Uint8Array): string {
    try {
      return this.#decoder.decode(bytes);
    } catch {
      throw new RemoteProtocolError("a field is not UTF-8");
    }
  }

  #dispatch(events: SseEvent[]): void {
    this.#lastEventId = this.#id;
    if (this.#data.length > 0) {
      const event = this.#event === "" ? "message" : this.#event;
      events.push({ event, data: this.#data.join("\n"), id: this.#lastEventId });
    }
    this.#clearEvent();
  }

  #clearEvent(): void {
    this.#event = "";
    this.#data = [];
    this.#dataBytes = 0;
  }
}

function startsWithBom(bytes: Uint8Array): boolean {
  return BOM.every((byte, index) => bytes[index] === byte);
}
