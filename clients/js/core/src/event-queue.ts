/** Events on their way to one `for await`. */

import type { WetinkError } from "./protocol/errors.js";
import type { ServerEvent } from "./protocol/events.js";

/** So many events may wait; then the stream pauses, and the server merges what it withholds. */
export const MOST_WAITING = 1000;

type Result = IteratorResult<ServerEvent, undefined>;
type Taker = { resolve: (result: Result) => void; reject: (error: WetinkError) => void };

const DONE: Result = { done: true, value: undefined };

export class EventQueue implements AsyncIterableIterator<ServerEvent, undefined> {
  readonly #drained: () => void;
  readonly #left: (queue: EventQueue) => void;
  #events: ServerEvent[] = [];
  #takers: Taker[] = [];
  #end: { readonly error: WetinkError | null } | null = null;

  /** `drained` is called when half of a full queue was taken, `left` when its reader went. */
  constructor(drained: () => void, left: (queue: EventQueue) => void) {
    this.#drained = drained;
    this.#left = left;
  }

  get isFull(): boolean {
    return this.#events.length >= MOST_WAITING;
  }

  get isHalfEmpty(): boolean {
    return this.#events.length <= MOST_WAITING / 2;
  }

  push(event: ServerEvent): void {
    const taker = this.#takers.shift();
    if (taker === undefined) this.#events.push(event);
    else taker.resolve({ done: false, value: event });
  }

  end(error: WetinkError | null): void {
    this.#end = { error };
    for (const taker of this.#takers.splice(0)) this.#finish(taker);
  }

  next(): Promise<Result> {
    const value = this.#events.shift();
    if (value !== undefined) {
      if (this.isHalfEmpty) this.#drained();
      return Promise.resolve({ done: false, value });
    }
    return new Promise((resolve, reject) => {
      const taker = { resolve, reject };
      if (this.#end === null) this.#takers.push(taker);
      else this.#finish(taker);
    });
  }

  return(): Promise<Result> {
    this.#events = [];
    this.end(null);
    this.#left(this);
    return Promise.resolve(DONE);
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  /** A failure is thrown once, as a generator would. */
  #finish(taker: Taker): void {
    const error = this.#end?.error ?? null;
    this.#end = { error: null };
    if (error === null) taker.resolve(DONE);
    else taker.reject(error);
  }
}
