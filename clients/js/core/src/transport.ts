/** What stands between a stream and its gateway. */

import type { AttachOptions } from "./options.js";
import type { GenerationRequest } from "./requests.js";

/** What a stream asks its transport for: to generate, or to read on. */
export type Wanted =
  | { readonly request: GenerationRequest }
  | ({ readonly stream: string } & Omit<AttachOptions, "signal" | "held">);

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
