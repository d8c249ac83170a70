/** What a client may ask for (SPEC section 8). The server checks every field and refuses unknown ones. */

import type { OffsetUnit } from "./protocol/units.js";

export interface Message {
  readonly role: "system" | "user" | "assistant" | "tool" | "developer";
  readonly content: string;
}

export type ChunkUnit = "token" | "word" | "clause" | "sentence" | "line" | "paragraph";

/** Has what is delivered come in pieces of `pad` bytes, one every `tick_ms`, whatever the text (SPEC 5.6). */
export interface Shape {
  /** 1024 (the default) to 65536. */
  readonly pad?: number;
  /** 10 to 10000; default 100. */
  readonly tick_ms?: number;
}

interface AnyPolicy {
  readonly grapheme_safe?: boolean;
  readonly shape?: Shape;
}

export type PolicyObject = AnyPolicy &
  (
    | { readonly kind: "hold" }
    | { readonly kind: "retract"; readonly max_tail?: number; readonly budget?: number }
    | {
        readonly kind: "chunk";
        readonly unit?: ChunkUnit;
        readonly max_delay_ms?: number;
        readonly tail?: boolean;
        readonly locale?: string;
      }
  );

/** An object, a short form (`retract:0.05`, `chunk:sentence`) or the name of a profile. */
export type Policy = PolicyObject | "hold" | "retract" | "chunk" | (string & {});

export type Include = "tokens" | "logprobs" | "confidence" | "timing";

interface Sampling {
  readonly model?: string;
  readonly max_tokens?: number;
  readonly temperature?: number;
  readonly top_p?: number;
  readonly top_k?: number;
  readonly min_p?: number;
  readonly seed?: number;
  readonly stop?: readonly string[];
  readonly stop_token_ids?: readonly number[];
  readonly ignore_eos?: boolean;
  readonly frequency_penalty?: number;
  readonly presence_penalty?: number;
  readonly repetition_penalty?: number;
  readonly logit_bias?: Readonly<Record<string, number>>;
  readonly prediction?: string;
  readonly priority?: number;
  readonly draft?: {
    readonly drafter?: "ngram" | "suffix" | "head" | "combined" | "model";
    readonly length?: number;
  };
  readonly policy?: Policy;
  /** Default here: `utf-16`, what JavaScript strings are indexed in. */
  readonly offsets?: OffsetUnit;
  readonly include?: readonly Include[];
}

/** One generation: exactly one of `prompt` and `messages`. */
export type GenerationRequest = Sampling &
  (
    | { readonly prompt: string; readonly messages?: never }
    | { readonly messages: readonly Message[]; readonly prompt?: never }
  );
