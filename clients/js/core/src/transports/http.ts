/** What both HTTP transports share: addresses, refusals, and one connection after another. */

import { Backoff, wait } from "../backoff.js";
import type { LiveStream } from "../live-stream.js";
import type { HttpOptions } from "../options.js";
import { WetinkError } from "../protocol/errors.js";
import type { Transport } from "../transport.js";

/** The server says something at least every 15 s (SPEC 4.10). */
export const SILENCE_MS = 45_000;

/** `path` below a gateway's address, which may be relative to the page. */
export function endpoint(base: string | URL, path: string): URL {
  return new URL(`${String(base).replace(/\/+$/, "")}/v1/${path}`, globalThis.location?.href);
}

export function lost(message: string, cause?: unknown): WetinkError {
  return new WetinkError("connection_lost", message, { retryable: true, cause });
}

/** What an HTTP answer that is no success says (SPEC 9.1). */
export async function refusal(response: Response): Promise<WetinkError> {
  const { status } = response;
  const details = {
    status,
    retryable: status === 429 || status >= 502,
    // Where it is a date, or absent: not known.
    retryAfterMs: Number(response.headers.get("Retry-After")) * 1000 || null,
  };
  // No text: cut off. A browser reads even "HTTP/1.1 20", cut off, as an answer of status 20.
  const text = await response.text().catch(() => "");
  try {
    const { code, message, param } = (JSON.parse(text) as { error: Refusal }).error;
    return new WetinkError(code, message, { ...details, field: param });
  } catch {
    const retryable = details.retryable || text === "";
    return new WetinkError("bad_response", `the server answered with status ${status}`, { ...details, retryable });
  }
}

interface Refusal {
  readonly code: string;
  readonly message: string;
  readonly param: string | null;
}

/** Attaches again and again, with one connection at a time, until the stream wants no more. */
export abstract class OneByOne implements Transport {
  protected readonly stream: LiveStream;
  protected readonly options: HttpOptions;
  readonly #backoff: Backoff;
  /** Of the connection of now. */
  #connection = new AbortController();
  #isCut = false;
  #silence: ReturnType<typeof setTimeout> | undefined;
  #isPaused = false;
  /** Those who wait until the reader takes events again. */
  #waiting: (() => void)[] = [];

  constructor(stream: LiveStream, options: HttpOptions) {
    this.stream = stream;
    this.options = options;
    this.#backoff = new Backoff(options.retry);
    void this.#run();
  }

  abstract cancel(): Promise<void>;

  ack(): boolean {
    return false;
  }

  pause(): void {
    this.#isPaused = true;
    clearTimeout(this.#silence);
  }

  resume(): void {
    this.#isPaused = false;
    for (const go of this.#waiting.splice(0)) go();
  }

  reconnect(): void {
    this.#isCut = true;
    this.#connection.abort();
  }

  leave(): void {
    this.resume();
    this.#connection.abort();
  }

  /** One attachment, from its request to its end. Throws `WetinkError` where it is refused. */
  protected abstract attach(signal: AbortSignal): Promise<void>;

  /** A network may vanish without a word; the server does not: after too long a silence, cut. */
  protected listen(): void {
    clearTimeout(this.#silence);
    this.#silence = setTimeout(() => this.#connection.abort(), SILENCE_MS);
  }

  /** Something new arrived. */
  protected progressed(): void {
    this.#backoff.reset();
  }

  /** Until the reader takes events again. */
  protected async ready(): Promise<void> {
    if (this.#isPaused) await new Promise<void>((resolve) => this.#waiting.push(resolve));
  }

  protected get headers(): Record<string, string> {
    const { key, headers } = this.options;
    return { ...headers, ...(key !== undefined && { Authorization: `Bearer ${key}` }) };
  }

  protected get fetch(): typeof fetch {
    // As a method of another object it would be refused by browsers.
    return this.options.fetch ?? globalThis.fetch.bind(globalThis);
  }

  async #run(): Promise<void> {
    // The stream is still being made.
    await Promise.resolve();
    while (this.stream.wantsMore) {
      const { signal } = (this.#connection = new AbortController());
      let error = lost("the connection ended before the stream did");
      try {
        await this.attach(signal);
      } catch (thrown) {
        error = thrown instanceof WetinkError ? thrown : lost("the connection failed", thrown);
      }
      clearTimeout(this.#silence);
      this.#connection.abort();
      const why = this.stream.ended(error);
      if (why === null) return;
      const ms = this.#isCut ? 0 : this.#backoff.next(why.retryAfterMs);
      this.#isCut = false;
      if (ms === null) this.stream.fail(why);
      else await wait(ms, (this.#connection = new AbortController()).signal);
    }
  }
}
