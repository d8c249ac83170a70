/**
 * Incremental parser of an event stream, after the WHATWG HTML standard, section 9.2.6.
 *
 * Bytes or strings in, events out; any chunking gives the same events. It never throws at its
 * caller: an event beyond the bound sets `failure`, and nothing more comes until `reset()`.
 */

/** Far above any event a gateway sends; an endless line must not fill a reader's memory. */
export const DEFAULT_MAX_EVENT_LENGTH = 1024 * 1024;

export interface SseEvent {
  /** The event's type, `message` where the stream names none. */
  readonly event: string;
  readonly data: string;
  /** The last event id seen up to this event, "" where there was none. */
  readonly id: string;
}

export interface SseParserOptions {
  /** Most UTF-16 units held of one event: its data so far and its unfinished line. */
  readonly maxEventLength?: number;
}

const BOM = "\uFEFF";
const DIGITS = /^[0-9]+$/;

export class SseParser {
  readonly #maxEventLength: number;
  // Kept across chunks and across `reset()`, as the standard keeps it across reconnects.
  #lastEventId = "";
  #retry: number | null = null;

  #decoder = newDecoder();
  #failure: "protocol_violation" | null = null;
  #atStart = true;
  /** The last character was CR: an LF that comes next belongs to it. */
  #afterCr = false;
  /** The line that has not ended yet. */
  #line = "";
  #event = "";
  /** Lines of data, each with the newline the standard appends. */
  #data = "";
  #id: string;

  constructor(options: SseParserOptions = {}) {
    this.#maxEventLength = options.maxEventLength ?? DEFAULT_MAX_EVENT_LENGTH;
    this.#id = this.#lastEventId;
  }

  /** What a reconnect sends as `Last-Event-ID`; "" where no event carried an id. */
  get lastEventId(): string {
    return this.#lastEventId;
  }

  /** Milliseconds to wait before a reconnect, where the server said so. */
  get retry(): number | null {
    return this.#retry;
  }

  get failure(): "protocol_violation" | null {
    return this.#failure;
  }

  /** The events completed by `chunk`; what it leaves unfinished waits for the next one. */
  feed(chunk: Uint8Array | string): SseEvent[] {
    const events: SseEvent[] = [];
    if (this.#failure !== null) return events;
    let text = typeof chunk === "string" ? chunk : this.#decoder.decode(chunk, { stream: true });
    if (text === "") return events;
    if (this.#atStart) {
      this.#atStart = false;
      if (text.startsWith(BOM)) text = text.slice(1);
    }
    this.#split(text, events);
    return events;
  }

  /** Forget the unfinished event and any failure: a new connection begins. */
  reset(): void {
    this.#decoder = newDecoder();
    this.#failure = null;
    this.#atStart = true;
    this.#afterCr = false;
    this.#line = "";
    this.#id = this.#lastEventId;
    this.#clear();
  }

  #split(text: string, events: SseEvent[]): void {
    let start = 0;
    if (this.#afterCr && text.startsWith("\n")) start = 1;
    // An empty rest keeps the state: nothing came after the CR yet.
    if (text.length > 0) this.#afterCr = false;
    let cr = text.indexOf("\r", start);
    let lf = text.indexOf("\n", start);
    while (cr !== -1 || lf !== -1) {
      const end = lf === -1 || (cr !== -1 && cr < lf) ? cr : lf;
      if (!this.#hold(text.slice(start, end))) return;
      this.#endLine(events);
      start = end + 1;
      if (end === cr) {
        if (start === text.length) this.#afterCr = true;
        else if (lf === start) start += 1;
        cr = text.indexOf("\r", start);
      }
      if (lf !== -1 && lf < start) lf = text.indexOf("\n", start);
    }
    this.#hold(text.slice(start));
  }

  /** Append to the unfinished line; false if the event has outgrown the bound. */
  #hold(text: string): boolean {
    this.#line += text;
    if (this.#data.length + this.#line.length <= this.#maxEventLength) return true;
    this.reset();
    this.#failure = "protocol_violation";
    return false;
  }

  #endLine(events: SseEvent[]): void {
    const line = this.#line;
    this.#line = "";
    if (line === "") {
      this.#dispatch(events);
      return;
    }
    const colon = line.indexOf(":");
    if (colon === 0) return; // a comment
    if (colon === -1) {
      this.#field(line, "");
      return;
    }
    const valueAt = line.startsWith(" ", colon + 1) ? colon + 2 : colon + 1;
    this.#field(line.slice(0, colon), line.slice(valueAt));
  }

  #field(name: string, value: string): void {
    switch (name) {
      case "event":
        this.#event = value;
        break;
      case "data":
        this.#data += `${value}\n`;
        break;
      case "id":
        if (!value.includes("\0")) this.#id = value;
        break;
      case "retry":
        if (DIGITS.test(value)) this.#retry = Number(value);
        break;
      default: // unknown fields are ignored
    }
  }

  #dispatch(events: SseEvent[]): void {
    this.#lastEventId = this.#id;
    if (this.#data !== "") {
      events.push({
        event: this.#event === "" ? "message" : this.#event,
        data: this.#data.slice(0, -1),
        id: this.#lastEventId,
      });
    }
    this.#clear();
  }

  #clear(): void {
    this.#event = "";
    this.#data = "";
  }
}

function newDecoder(): TextDecoder {
  // The BOM is taken off by the parser, for bytes and strings alike.
  return new TextDecoder("utf-8", { ignoreBOM: true });
}
