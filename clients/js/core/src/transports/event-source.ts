/** Over the platform's `EventSource`, for pages that may use nothing else. */

import { LiveStream } from "../live-stream.js";
import type { HttpOptions, StreamOptions } from "../options.js";
import type { OffsetUnit } from "../protocol/units.js";
import type { Stream } from "../stream.js";
import { OneByOne, refusal } from "./http.js";
import { streamTicket } from "./tickets.js";

export interface EventSourceOptions
  extends StreamOptions,
    Pick<HttpOptions, "retry" | "fetch"> {
  /** API key. An `EventSource` has no headers: before each connection it is exchanged for a ticket. */
  readonly key?: string;
  /** Where somebody else holds the key: asked for a ticket before each connection. */
  readonly ticket?: () => Promise<string>;
  /** Default: the platform's. */
  readonly EventSource?: typeof EventSource;
}

/**
 * Reads the stream at `url`, the path that `POST /v1/streams` gave as `events`, with a query if it is
 * to have one (`?policy=chunk:sentence`).
 *
 * It reconnects by its own clock and with a cursor, not by the browser's, which would send an old
 * ticket and ask again for ever.
 */
export function eventSource(url: string | URL, options: EventSourceOptions = {}): Stream {
  const address = new URL(url, globalThis.location?.href);
  const query = address.searchParams;
  if (!query.has("offsets")) query.set("offsets", "utf-16");
  const [offsets, cursor] = [query.get("offsets") as OffsetUnit, query.get("cursor")];
  const terms = { ...options, offsets, ...(cursor !== null && { cursor }) };
  return new LiveStream(
    { stream: null, options: terms },
    (live) => new EventSourceTransport(live, options, address),
  );
}

class EventSourceTransport extends OneByOne {
  readonly #url: URL;
  readonly #choices: EventSourceOptions;

  constructor(live: LiveStream, options: EventSourceOptions, url: URL) {
    super(live, options);
    this.#url = url;
    this.#choices = options;
  }

  override async cancel(): Promise<void> {
    const url = new URL(this.#url.pathname.replace(/\/events$/, ""), this.#url);
    const response = await this.fetch(url, { method: "DELETE", headers: this.headers });
    if (!response.ok) throw await refusal(response);
  }

  /** An `EventSource` cannot wait: it is closed, and the server merges until the next one. */
  override pause(): void {
    super.pause();
    this.reconnect();
  }

  protected override async attach(signal: AbortSignal): Promise<void> {
    await this.ready();
    const url = await this.#address();
    if (signal.aborted) return;
    const source = new (this.#choices.EventSource ?? EventSource)(url);
    try {
      if (await this.#listenTo(source, signal)) return;
    } finally {
      source.close();
    }
    // The browser says that it was refused, but not why.
    const response = await this.fetch(url, { headers: { Accept: "text/event-stream" }, signal });
    if (response.status === 204) this.stream.nothingMore();
    else if (!response.ok) throw await refusal(response);
  }

  async #address(): Promise<URL> {
    const url = new URL(this.#url);
    const { cursor } = this.stream;
    if (cursor !== null) url.searchParams.set("cursor", cursor);
    const ticket = await this.#ticket();
    if (ticket !== undefined) url.searchParams.set("ticket", ticket);
    return url;
  }

  async #ticket(): Promise<string | undefined> {
    const { key, ticket } = this.#choices;
    if (ticket !== undefined || key === undefined) return ticket?.();
    return streamTicket(this.#url, key, this.fetch);
  }

  /** Until the connection ends; false where it was refused. */
  #listenTo(source: EventSource, signal: AbortSignal): Promise<boolean> {
    return new Promise((resolve) => {
      source.addEventListener("message", ({ data }: MessageEvent<string>) => {
        this.listen();
        if (this.stream.read([data])) this.progressed();
        if (!this.stream.wantsMore || this.stream.hasFailed) resolve(true);
      });
      source.addEventListener("error", () => resolve(source.readyState !== source.CLOSED));
      signal.addEventListener("abort", () => resolve(true));
      this.listen();
    });
  }
}
