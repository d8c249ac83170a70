/** What the caller may choose, for every transport. */

import type { OffsetUnit } from "./protocol/units.js";
import type { Include, Policy } from "./requests.js";

/** Bounded exponential back-off with full jitter. */
export interface Retry {
  /** Connections in a row that brought nothing new, after which a stream is given up; 0: none is tried again. */
  readonly attempts?: number;
  /** The first wait is random up to this; each further one up to twice as much, and no shorter than the server asks. */
  readonly firstMs?: number;
  /** Of a wait, also of one that the server asks for. */
  readonly longestMs?: number;
}

export interface StreamOptions {
  /** Aborting ends the stream with code `aborted`; a generation this client started is cancelled. */
  readonly signal?: AbortSignal;
}

export interface AttachOptions extends StreamOptions {
  readonly policy?: Policy;
  /** Default: `utf-16`, what JavaScript strings are indexed in. */
  readonly offsets?: OffsetUnit;
  readonly include?: readonly Include[];
  /** Where to resume, as kept from `stream.cursor` (in a new page, for instance). */
  readonly cursor?: string;
  /** Committed text up to `cursor`, where it was kept too; without it the digest cannot be checked. */
  readonly held?: string;
}

export interface HttpOptions {
  /** API key, sent as `Authorization: Bearer`. */
  readonly key?: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly retry?: Retry;
  /** Default: the platform's. */
  readonly fetch?: typeof fetch;
}
