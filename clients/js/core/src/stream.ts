/** One generation as a program reads it, whatever carries it. */


import type { ServerEvent, Stats, Usage } from "./protocol/events.js";
import type { DigestVerdict } from "./protocol/digest.js";
import type { PartText } from "./protocol/received.js";
import type { View } from "./view.js";

/** What a finished stream has to say. */
export interface Finished {
  /** Committed text of all parts of kind `text`. */
  readonly text: string;
  readonly parts: readonly PartText[];
  /** `stop`, `length`, `cancelled`, `tool_calls`, `content_filter`; an open set. */
  readonly reason: string;
  readonly usage: Usage;
  /** Of the last attachment, in its offset unit. */
  readonly stats: Stats;
  /** `unknown` where the page is not secure (no WebCrypto), or the text before `cursor` was not kept. */
  readonly digest: Exclude<DigestVerdict, "mismatch">;
}

/**
 * Resumes by itself: a gap, a lost connection, a restarted server show only as another `open` event
 * and in `view.state`. It ends with `finish`, or with one `WetinkError`.
 *
 * Iterating gives every event from the first `next()` on. Who takes them slowly slows the stream
 * down (the server merges meanwhile), so memory stays bounded; leaving the loop leaves the stream alone.
 */
export interface Stream extends AsyncIterable<ServerEvent> {
  /** The stream's name on the server; null before the first `open`. */
  readonly id: string | null;
  /** Where to resume in a new page or process; null before the first `open`. */
  readonly cursor: string | null;
  /** With it the request can be repeated; null where it is not known, or beyond 2^53 - 1. */
  readonly seed: number | null;
  readonly view: View;
  /** The view: the same object until something changes. */
  readonly getSnapshot: () => View;
  /**
   * Calls `listener` with the view, now and after every change, and gives a function that ends that:
   * what Svelte calls a store, and what React's `useSyncExternalStore` takes with `getSnapshot`.
   */
  readonly subscribe: (listener: (view: View) => void) => () => void;
  /** Resolves when the stream has finished and its digest was checked; rejects with a `WetinkError`. */
  readonly finished: Promise<Finished>;
  /** Committed text of the parts of this kind (default `text`), piece by piece, from the beginning. */
  committed(kind?: string): AsyncIterableIterator<string, undefined>;
  /** Ends the generation; what was committed stands. The stream then finishes with reason `cancelled`. */
  cancel(): Promise<void>;
  /**
   * Tells the server that the text up to `at` was shown, spoken or accepted, in the attachment's
   * unit; `part` defaults to the current one. False over HTTP, which has no way back.
   */
  ack(at: number, part?: number): boolean;
  /** For demonstrations: cuts the connection and resumes. */
  reconnect(): void;
}

