/** The one implementation of `Stream`: what was received, who listens, and what to ask for next. */

import { EventQueue } from "./event-queue.js";
import type { AttachOptions, StreamOptions } from "./options.js";
import { checkDigest } from "./protocol/digest.js";
import { RemoteProtocolError, WetinkError } from "./protocol/errors.js";
import { decodeEvent, type Finish, type Open, type ServerEvent } from "./protocol/events.js";
import { Receiver } from "./protocol/receiver.js";
import type { OffsetUnit } from "./protocol/units.js";
import type { GenerationRequest } from "./requests.js";
import { Restarted } from "./restarted.js";
import type { Finished, Stream } from "./stream.js";
import type { Transport, Wanted } from "./transport.js";
import { snapshotOf, type View } from "./view.js";

/** A generation to start, or a stream to read. */
export type Source =
  | { readonly request: GenerationRequest; readonly options: StreamOptions }
  | { readonly stream: string | null; readonly options: AttachOptions };

export class LiveStream implements Stream {
  readonly finished: Promise<Finished>;
  readonly #request: GenerationRequest | null;
  /** How to attach. */
  readonly #terms: AttachOptions & { readonly offsets: OffsetUnit };
  readonly #transport: Transport;
  readonly #signal: AbortSignal | undefined;
  readonly #listeners = new Set<() => void>();
  readonly #queues = new Set<EventQueue>();
  #receiver: Receiver;
  #id: string | null;
  #open: Open | null = null;
  /** Text that a stream which ended with its server has shown, until the repeated one says it again. */
  #restarted: Restarted | null = null;
  #view: View | null = null;
  #error: WetinkError | null = null;
  #over = false;
  #settle!: { resolve: (finished: Finished) => void; reject: (error: WetinkError) => void };

  /** `connect` gives the transport; what it brings is told to the stream it gets. */
  constructor(source: Source, connect: (stream: LiveStream) => Transport) {
    this.#request = "request" in source ? source.request : null;
    this.#id = "stream" in source ? source.stream : null;
    this.#terms = { offsets: "utf-16", ...(this.#request ?? source.options) };
    const { offsets: unit, cursor, held } = this.#terms;
    this.#receiver = new Receiver({ unit, cursor, held });
    this.finished = new Promise((resolve, reject) => (this.#settle = { resolve, reject }));
    // Who does not wait for the end has not failed to handle it.
    this.finished.catch(() => {});
    this.#transport = connect(this);
    this.#signal = source.options.signal;
    this.#signal?.addEventListener("abort", this.#aborted);
    if (this.#signal?.aborted) this.#aborted();
  }

  get id(): string | null {
    return this.#id;
  }

  get cursor(): string | null {
    return this.#receiver.cursor;
  }

  get seed(): number | null {
    return this.#open?.seed ?? this.#request?.seed ?? null;
  }

  get view(): View {
    return this.getSnapshot();
  }

  getSnapshot = (): View => {
    this.#view ??= this.#look();
    return this.#view;
  };

  subscribe = (listener: (view: View) => void): (() => void) => {
    const heard = (): void => listener(this.getSnapshot());
    this.#listeners.add(heard);
    heard();
    return () => this.#listeners.delete(heard);
  };

  async *committed(kind = "text"): AsyncGenerator<string, undefined> {
    let [part, seen] = [0, 0];
    for (;;) {
      const { parts } = this.view;
      const current = parts[part];
      const fresh = current?.kind === kind ? current.committed.slice(seen) : "";
      if (fresh !== "") {
        seen += fresh.length;
        yield fresh;
      } else if (part + 1 < parts.length) {
        [part, seen] = [part + 1, 0];
      } else if (this.#error !== null) {
        throw this.#error;
      } else if (this.#over) {
        return undefined;
      } else {
        await this.#change();
      }
    }
  }

  [Symbol.asyncIterator](): EventQueue {
    const queue = new EventQueue(this.#drained, (left) => {
      this.#queues.delete(left);
      this.#drained();
    });
    if (this.#over) queue.end(this.#error);
    else this.#queues.add(queue);
    return queue;
  }

  async cancel(): Promise<void> {
    if (!this.#over) await this.#transport.cancel();
  }

  ack(at: number, part = this.view.parts.at(-1)?.index ?? 0): boolean {
    return !this.#over && this.#transport.ack(at, part);
  }

  reconnect(): void {
    if (!this.#over) this.#transport.reconnect();
  }

  // What follows is for transports.

  /** What to ask the server for. */
  get wanted(): Wanted {
    const { policy, offsets, include } = this.#terms;
    if (this.#id === null && this.#request !== null) {
      return { request: { ...this.#request, seed: this.seed ?? undefined, offsets } };
    }
    return { stream: this.#id ?? "", policy, offsets, include, cursor: this.cursor ?? undefined };
  }

  /** False once the end was told, or the caller has given up. */
  get wantsMore(): boolean {
    return !this.#over && this.#receiver.state !== "finished";
  }

  /** What was received is at fault; no more of this attachment counts. */
  get hasFailed(): boolean {
    return this.#receiver.state === "failed";
  }

  /** The server has named the stream, before any event. */
  named(id: string): void {
    this.#id = id;
  }

  /** Takes events as they came off the wire. True if they brought something new to show. */
  read(events: Iterable<string | ServerEvent>): boolean {
    let isNew = false;
    for (const event of events) isNew = this.#take(event) || isNew;
    this.#changed();
    if ([...this.#queues].some((queue) => queue.isFull)) this.#transport.pause();
    return isNew;
  }

  /** The transport found the server at fault. */
  reject(fault: RemoteProtocolError): void {
    this.#receiver.reject(fault);
  }

  /** A resume was answered with 204. */
  nothingMore(): void {
    this.#receiver.nothingMore();
    this.#changed();
  }

  /** The attachment is over; `error` says how, where the stream does not know. What to attach again after; null: do not. */
  ended(error: WetinkError): WetinkError | null {
    if (!this.wantsMore) return null;
    const { failure } = this.#receiver;
    const why = failure === null ? error : new WetinkError(failure.code, failure.message, failure);
    // A refusal of the gateway's own is told at once; what a network does is tried again.
    const isLost = NETWORK.test(why.code);
    this.#receiver.interrupted();
    if (this.#request !== null && this.#mustRepeat(why)) this.#repeat();
    else if (!why.retryable || why.ended || (this.#open === null && !isLost)) {
      this.fail(why);
      return null;
    }
    this.#changed();
    return why;
  }

  fail(error: WetinkError): void {
    if (this.#over) return;
    this.#receiver.reject(error);
    this.#error = error;
    this.#settle.reject(error);
    this.#end();
  }

  #take(raw: string | ServerEvent): boolean {
    if (this.#over || this.hasFailed) return false;
    try {
      const event = typeof raw === "string" ? decodeEvent(raw) : raw;
      if (event === null) return false;
      this.#receiver.receive(event);
      if (this.hasFailed && event.type !== "error") return false;
      if (event.type === "open") {
        this.#open = event;
        this.#id = event.stream ?? this.#id;
      }
      this.#tell(event);
      if (event.type === "finish") void this.#conclude(event);
      // `open` alone does not show that an attachment is worth having.
      const isIdle = event.type === "open" || event.type === "heartbeat";
      return !isIdle && !this.hasFailed && this.#restarted === null;
    } catch (fault) {
      if (!(fault instanceof RemoteProtocolError)) throw fault;
      this.#receiver.reject(fault);
      return false;
    }
  }

  /** To those who iterate. */
  #tell(event: ServerEvent): void {
    const events = this.#restarted?.told(event, this.#receiver) ?? [event];
    if (this.#restarted?.isReached) this.#restarted = null;
    for (const queue of this.#queues) for (const told of events) queue.push(told);
  }

  async #conclude(finish: Finish): Promise<void> {
    const digest = await checkDigest(this.#receiver);
    if (this.#over) return;
    if (digest === "mismatch") {
      this.fail(new RemoteProtocolError("the digest does not match the text received"));
      return;
    }
    const { reason, usage, stats } = finish;
    const { parts } = this.view;
    const texts = parts.filter(({ kind }) => kind === "text").map(({ committed }) => committed);
    this.#settle.resolve({ text: texts.join(""), parts, reason, usage, stats, digest });
    this.#end();
  }

  #end(): void {
    this.#over = true;
    this.#signal?.removeEventListener("abort", this.#aborted);
    this.#transport.leave();
    for (const queue of this.#queues) queue.end(this.#error);
    this.#queues.clear();
    this.#changed();
  }

  #aborted = (): void => {
    // A request without an answer is withdrawn by leaving.
    if (this.#request !== null && this.#id !== null) this.#transport.cancel().catch(() => {});
    const cause: unknown = this.#signal?.reason;
    this.fail(new WetinkError("aborted", "aborted by the caller", { cause }));
  };

  /** The server has lost the stream, and repeating the request gives the same text. */
  #mustRepeat({ code, ended, retryable }: WetinkError): boolean {
    if (this.#open === null) return code === "unknown_stream";
    return this.seed !== null && (code === "unknown_epoch" || (ended && retryable));
  }

  #repeat(): void {
    if (this.#restarted === null && this.#open !== null) {
      this.#restarted = new Restarted(this.#receiver.parts.map(snapshotOf));
    }
    this.#id = null;
    this.#receiver = new Receiver({ unit: this.#terms.offsets });
  }

  #look(): View {
    const parts = this.#restarted?.parts ?? this.#receiver.parts.map(snapshotOf);
    const last = parts.at(-1);
    return {
      state: this.#restarted === null || this.#over ? this.#receiver.state : "interrupted",
      id: this.#id,
      committed: last?.committed ?? this.#receiver.committed,
      tail: last?.tail ?? "",
      verifiedTail: last?.verifiedTail ?? "",
      parts,
      error: this.#error,
    };
  }

  #changed(): void {
    this.#view = null;
    for (const listener of this.#listeners) listener();
  }

  #change(): Promise<void> {
    return new Promise((resolve) => {
      const changed = (): void => {
        this.#listeners.delete(changed);
        resolve();
      };
      this.#listeners.add(changed);
    });
  }

  #drained = (): void => {
    if ([...this.#queues].every((queue) => queue.isHalfEmpty)) this.#transport.resume();
  };
}

const NETWORK = /^(connection_lost|gap|bad_response)$/;
