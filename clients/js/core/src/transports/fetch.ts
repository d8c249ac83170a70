/** Server-sent events over `fetch`: with a body, with headers, in every runtime. */

import { LiveStream } from "../live-stream.js";
import type { AttachOptions, HttpOptions, StreamOptions } from "../options.js";
import { WetinkError } from "../protocol/errors.js";
import { SseParser } from "../protocol/sse.js";
import type { GenerationRequest } from "../requests.js";
import type { Stream } from "../stream.js";
import { endpoint, lost, OneByOne, refusal } from "./http.js";

/**
 * Generates, and reads the text as it comes. `url` is the gateway's address, "" that of the page.
 *
 * A refused request rejects `finished` (and ends every loop) with a `WetinkError` that has `code`,
 * `message` and `field`.
 */
export function stream(
  url: string | URL,
  request: GenerationRequest,
  options: StreamOptions & HttpOptions = {},
): Stream {
  return new LiveStream({ request, options }, (live) => new FetchTransport(live, options, url));
}

/** Reads a stream that exists, from its beginning or from `options.cursor`. */
export function attach(
  url: string | URL,
  id: string,
  options: AttachOptions & HttpOptions = {},
): Stream {
  return new LiveStream({ stream: id, options }, (live) => new FetchTransport(live, options, url));
}

const EVENT_STREAM = "text/event-stream";

class FetchTransport extends OneByOne {
  readonly #url: string | URL;

  constructor(live: LiveStream, options: HttpOptions, url: string | URL) {
    super(live, options);
    this.#url = url;
  }

  override async cancel(): Promise<void> {
    const { id } = this.stream;
    if (id === null) {
      // Hanging up withdraws a request that still waits.
      this.stream.fail(new WetinkError("withdrawn", "withdrawn before the stream began"));
      return;
    }
    const response = await this.fetch(endpoint(this.#url, `streams/${id}`), {
      method: "DELETE",
      headers: this.headers,
    });
    if (!response.ok) throw await refusal(response);
  }

  protected override async attach(signal: AbortSignal): Promise<void> {
    const response = await this.#ask(signal);
    if (response.status === 204) {
      this.stream.nothingMore();
      return;
    }
    if (!response.ok) throw await refusal(response);
    requireEventStream(response);
    const path = response.headers.get("Content-Location");
    if (path !== null) this.stream.named(path.slice(path.lastIndexOf("/") + 1));
    if (response.body !== null) await this.#read(response.body.getReader());
  }

  #ask(signal: AbortSignal): Promise<Response> {
    const { wanted } = this.stream;
    const headers = { ...this.headers, Accept: EVENT_STREAM };
    if ("request" in wanted) {
      return this.fetch(endpoint(this.#url, "streams"), {
        method: "POST",
        headers: { ...headers, "Content-Type": "application/json" },
        body: JSON.stringify(wanted.request),
        signal,
      });
    }
    const { stream: id, ...query } = wanted;
    const url = endpoint(this.#url, `streams/${encodeURIComponent(id)}/events`);
    for (const [name, value] of Object.entries(query)) {
      if (value === undefined) continue;
      const isPlain = typeof value === "string" || Array.isArray(value);
      url.searchParams.set(name, isPlain ? String(value) : JSON.stringify(value));
    }
    return this.fetch(url, { headers, signal });
  }

  async #read(body: ReadableStreamDefaultReader<Uint8Array>): Promise<void> {
    const parser = new SseParser();
    while (this.stream.wantsMore && !this.stream.hasFailed) {
      await this.ready();
      this.listen();
      const { done, value } = await body.read();
      if (done) return;
      const events = parser.feed(value).map(({ data }) => data);
      if (this.stream.read(events)) this.progressed();
      if (parser.failure !== null) this.stream.reject(parser.failure);
    }
  }
}

function requireEventStream({ status, headers }: Response): void {
  const type = headers.get("Content-Type") ?? "";
  if (type.startsWith(EVENT_STREAM)) return;
  // A browser takes headers that were cut off for whole ones.
  if (EVENT_STREAM.startsWith(type)) throw lost("the connection ended within the headers");
  throw new WetinkError("bad_response", "the answer is not an event stream", { status });
}
