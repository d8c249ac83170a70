/** Waits between connections: exponential, with full jitter, bounded in number. */

import type { Retry } from "./options.js";

const ATTEMPTS = 12;
const FIRST_MS = 250;
const LONGEST_MS = 10_000;

export class Backoff {
  readonly #attempts: number;
  readonly #firstMs: number;
  readonly #longestMs: number;
  #failures = 0;

  constructor({ attempts = ATTEMPTS, firstMs = FIRST_MS, longestMs = LONGEST_MS }: Retry = {}) {
    this.#attempts = attempts;
    this.#firstMs = firstMs;
    this.#longestMs = longestMs;
  }

  /** Something new arrived: the next wait is a short one. */
  reset(): void {
    this.#failures = 0;
  }

  /** Milliseconds to wait before the next connection; null when enough were tried. */
  next(retryAfterMs: number | null): number | null {
    if (this.#failures >= this.#attempts) return null;
    const most = Math.min(this.#firstMs * 2 ** this.#failures, this.#longestMs);
    this.#failures += 1;
    return Math.max(Math.random() * most, Math.min(retryAfterMs ?? 0, this.#longestMs));
  }
}

/** After so many milliseconds, when the network comes back, or when `signal` is aborted. */
export function wait(ms: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const done = (): void => {
      clearTimeout(timer);
      globalThis.removeEventListener?.("online", done);
      signal?.removeEventListener("abort", done);
      resolve();
    };
    const timer = setTimeout(done, ms);
    globalThis.addEventListener?.("online", done);
    signal?.addEventListener("abort", done);
  });
}
