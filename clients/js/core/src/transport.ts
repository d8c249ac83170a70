/** What stands between a stream and its gateway. */

import type { OffsetUnit } from "./protocol/units.js";
import type { Include, Policy } from "./requests.js";

/** What a stream asks its transport for: to generate, or to read on. Undefined fields are left out. */
export type Wanted =
  | { readonly request: object }
  | {
      readonly stream: string;
      readonly offsets: OffsetUnit;
      readonly policy: Policy | undefined;
      readonly include: readonly Include[] | undefined;
      readonly cursor: string | undefined;
    };

/** Carries one stream's events, over one attachment after another. */
export interface Transport {
  /** Asks the server to end the generation. */
  cancel(): Promise<void>;
  /** False where this transport cannot say it. */
  ack(at: number, part: number): boolean;
  /** The reader is behind: bring nothing more until `resume`. */
  pause(): void;
  resume(): void;
  /** Drops the connection as if the network had, and attaches again. */
  reconnect(): void;
  /** Nothing is wanted any more, for good. */
  leave(): void;
}
