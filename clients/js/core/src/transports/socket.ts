/** One WebSocket for many streams (SPEC 7.3). */

import { Backoff, wait } from "../backoff.js";
import { LiveStream, type Source } from "../live-stream.js";
import type { AttachOptions, HttpOptions, Retry, StreamOptions } from "../options.js";
import { WetinkError } from "../protocol/errors.js";
import { decodeEvent, type ServerEvent } from "../protocol/events.js";
import type { GenerationRequest } from "../requests.js";
import type { Stream } from "../stream.js";
import type { Transport } from "../transport.js";
import { endpoint, lost, SILENCE_MS } from "./http.js";
import { socketTicket } from "./tickets.js";

/** `idle`: the connection ended with nothing to read; the next stream opens another. */
export type ConnectionState = "connecting" | "open" | "waiting" | "idle" | "closed";

export interface ConnectOptions extends Pick<HttpOptions, "retry" | "fetch"> {
  /** API key. No browser lets a WebSocket send it: before each connection it is exchanged for a ticket. */
  readonly key?: string;
  /** Where somebody else holds the key: asked for a ticket before each connection. */
  readonly ticket?: () => Promise<string>;
  /** Makes the socket; default: the platform's `WebSocket`. Node.js 20 has none, `ws` will do. */
  readonly socket?: (url: string, protocols: string[]) => Socket;
}

/** As much of a `WebSocket` as is used here. */
export interface Socket {
  send(data: string): void;
  close(): void;
  addEventListener(type: "open" | "close" | "error", listener: () => void): void;
  addEventListener(type: "message", listener: (event: { data: unknown }) => void): void;
}

const PROTOCOL = "wetink.v1.json";

/** `url` is the gateway's address, "" that of the page. */
export function connect(url: string | URL, options: ConnectOptions = {}): Connection {
  return new Connection(url, options);
}

/**
 * Carries any number of streams, each of which resumes by itself when the connection was lost.
 * Every stream can be read once at a time on one connection.
 */
export class Connection {
  readonly #url: string | URL;
  readonly #options: ConnectOptions;
  readonly #backoff: Backoff;
  readonly #listeners = new Set<(state: ConnectionState) => void>();
  readonly #attached = new Set<Attached>();
  readonly #byRef = new Map<string, Attached>();
  #socket: Socket | null = null;
  #state: ConnectionState = "idle";
  #refs = 0;
  /** Aborted with `close`, so that no timer outlives the connection. */
  readonly #closing = new AbortController();
  #silence: ReturnType<typeof setTimeout> | undefined;

  constructor(url: string | URL, options: ConnectOptions) {
    this.#url = url;
    this.#options = options;
    this.#backoff = new Backoff(options.retry);
    void this.#dial();
  }

  get state(): ConnectionState {
    return this.#state;
  }

  /** Calls `listener` with the state, now and after every change; gives a function that ends that. */
  subscribe = (listener: (state: ConnectionState) => void): (() => void) => {
    this.#listeners.add(listener);
    listener(this.#state);
    return () => this.#listeners.delete(listener);
  };

  /** Generates, and reads the text as it comes. */
  start(request: GenerationRequest, options: StreamOptions = {}): Stream {
    return this.#add({ request, options });
  }

  /** Reads a stream that exists, from its beginning or from `options.cursor`. */
  attach(id: string, options: AttachOptions = {}): Stream {
    return this.#add({ stream: id, options });
  }

  /** For demonstrations: cuts the connection; every stream resumes. */
  reconnect(): void {
    this.#lose(this.#socket);
  }

  /** Ends every stream that is still read, with code `closed`. They go on at the server for a while. */
  close(): void {
    this.#become("closed");
    this.#closing.abort();
    for (const { stream } of this.#attached) {
      stream.fail(new WetinkError("closed", "the connection was closed"));
    }
    this.#hangUp();
  }

  #add(source: Source): Stream {
    const live = new LiveStream(source, (stream) => {
      const attached = new Attached(stream, this.#options.retry, this.#wire);
      this.#attached.add(attached);
      return attached;
    });
    if (this.#state === "closed") live.fail(new WetinkError("closed", "the connection was closed"));
    else if (this.#state === "idle") void this.#dial();
    else if (this.#state === "open") {
      this.#listen();
      for (const attached of this.#attached) attached.ask();
    }
    return live;
  }

  /** What an attachment uses of the connection. */
  readonly #wire: Wire = {
    send: (message) => {
      if (this.#state !== "open") return false;
      this.#socket?.send(JSON.stringify(message));
      return true;
    },
    newRef: (attached, old) => {
      if (old !== null) this.#byRef.delete(old);
      this.#refs += 1;
      const ref = String(this.#refs);
      this.#byRef.set(ref, attached);
      return ref;
    },
    gone: (attached, ref) => {
      this.#attached.delete(attached);
      if (ref !== null) this.#byRef.delete(ref);
      if (this.#attached.size === 0) clearTimeout(this.#silence);
    },
    reconnect: () => this.reconnect(),
  };

  async #dial(): Promise<void> {
    this.#become("connecting");
    const url = endpoint(this.#url, "ws");
    url.protocol = url.protocol.replace("http", "ws");
    let socket: Socket;
    try {
      const ticket = await this.#ticket();
      if (ticket !== undefined) url.searchParams.set("ticket", ticket);
      if (this.#state === "closed") return;
      const make = this.#options.socket ?? ((to, protocols) => new WebSocket(to, protocols));
      socket = make(url.href, [PROTOCOL]);
    } catch (thrown) {
      const refused = thrown instanceof WetinkError ? thrown : null;
      if (refused !== null && !refused.retryable) this.#giveUp(refused);
      else this.#retry(lost("no ticket, or no WebSocket", thrown), refused?.retryAfterMs);
      return;
    }
    this.#socket = socket;
    this.#listen();
    socket.addEventListener("open", () => {
      if (this.#socket !== socket) return;
      this.#become("open");
      for (const attached of this.#attached) attached.ask();
    });
    socket.addEventListener("message", ({ data }) => this.#receive(socket, data));
    socket.addEventListener("close", () => this.#lose(socket));
    // A `close` follows; unheard, an error would end a Node.js process.
    socket.addEventListener("error", () => {});
  }

  async #ticket(): Promise<string | undefined> {
    const { key, ticket, fetch } = this.#options;
    if (ticket !== undefined || key === undefined) return ticket?.();
    return socketTicket(this.#url, key, fetch);
  }

  #receive(socket: Socket, data: unknown): void {
    if (this.#socket !== socket) return;
    this.#listen();
    let event: ServerEvent | null;
    try {
      event = decodeEvent(String(data));
    } catch {
      // Nobody knows whose event it was: all streams resume where they are.
      this.#lose(socket);
      return;
    }
    if (event === null) return;
    if ("ref" in event && event.ref !== null) {
      const attached = this.#byRef.get(event.ref);
      if (attached?.answered(event)) this.#backoff.reset();
      return;
    }
    for (const attached of this.#attached) {
      if (attached.reads(event.stream) && attached.take(event)) this.#backoff.reset();
    }
  }

  /** The network may vanish without a word; while a stream is read, the server does not. */
  #listen(): void {
    clearTimeout(this.#silence);
    if (this.#attached.size === 0 && this.#state === "open") return;
    this.#silence = setTimeout(() => this.#lose(this.#socket), SILENCE_MS);
  }

  /** `socket` is of no use any more. */
  #lose(socket: Socket | null): void {
    if (socket === null || this.#socket !== socket || this.#state === "closed") return;
    this.#hangUp();
    this.#retry(lost("the connection was lost"));
  }

  #retry(error: WetinkError, retryAfterMs: number | null = null): void {
    if (this.#state === "closed") return;
    this.#byRef.clear();
    for (const attached of this.#attached) attached.interrupted(error);
    const ms = this.#backoff.next(retryAfterMs);
    if (ms === null || this.#attached.size === 0) {
      this.#giveUp(error);
      return;
    }
    this.#become("waiting");
    void wait(ms, this.#closing.signal).then(() => {
      if (this.#state === "waiting") void this.#dial();
    });
  }

  /** Until another stream asks for a connection. */
  #giveUp(error: WetinkError): void {
    if (this.#state === "closed") return;
    for (const { stream } of this.#attached) stream.fail(error);
    this.#backoff.reset();
    this.#become("idle");
  }

  #hangUp(): void {
    clearTimeout(this.#silence);
    this.#socket?.close();
    this.#socket = null;
  }

  #become(state: ConnectionState): void {
    this.#state = state;
    for (const listener of this.#listeners) listener(state);
  }
}

interface Wire {
  /** False while there is no connection. */
  send(message: object): boolean;
  newRef(attached: Attached, old: string | null): string;
  gone(attached: Attached, ref: string | null): void;
  reconnect(): void;
}

/** One stream on the connection. */
class Attached implements Transport {
  readonly stream: LiveStream;
  readonly #wire: Wire;
  readonly #backoff: Backoff;
  #ref: string | null = null;
  /** `asked`: the answer is under way; `resting`: not wanted for the moment. */
  #stage: "detached" | "asked" | "open" | "resting" = "detached";
  #isPaused = false;
  #isCancelled = false;

  constructor(stream: LiveStream, retry: Retry | undefined, wire: Wire) {
    this.stream = stream;
    this.#wire = wire;
    this.#backoff = new Backoff(retry);
  }

  /** Asks the server for the stream, unless that is done already. */
  ask(): void {
    if (this.#stage !== "detached" || this.#isPaused) return;
    this.#ref = this.#wire.newRef(this, this.#ref);
    const { wanted } = this.stream;
    const type = "request" in wanted ? "start" : "attach";
    if (this.#wire.send({ type, ref: this.#ref, ...wanted })) this.#stage = "asked";
  }

  reads(stream: string | null): boolean {
    return this.#stage === "open" && stream !== null && stream === this.stream.id;
  }

  /** Takes the answer to `ask`. True if it brought something new. */
  answered(event: ServerEvent): boolean {
    if (this.#stage !== "asked") return false; // a late ack or cancel was refused: nothing hangs on it
    if (event.type === "open") {
      this.#stage = "open";
      if (this.#isCancelled) this.#wire.send({ type: "cancel", ref: this.#ref });
      return this.take(event);
    }
    if (event.type !== "error") return false;
    const { code, message, retryable, ended, param: field, retry_after_s: seconds } = event;
    this.#ended(new WetinkError(code, message, { retryable, ended, field, retryAfterMs: seconds && seconds * 1000 }));
    return false;
  }

  /** True if it brought something new. */
  take(event: ServerEvent): boolean {
    const isNew = this.stream.read([event]);
    if (isNew) this.#backoff.reset();
    if (this.stream.hasFailed) {
      // After its own `error` the server has nothing to detach; a verdict of ours it does not know.
      if (event.type !== "error") this.#detach();
      this.#ended(lost("the attachment ended"));
    }
    return isNew;
  }

  /** The connection was lost. */
  interrupted(error: WetinkError): void {
    this.#ref = null;
    if (this.#stage !== "resting") this.#stage = "detached";
    if (!this.#isPaused) this.stream.ended(error);
  }

  /** Without a connection it is said with the next one; a generation that never began is not begun. */
  async cancel(): Promise<void> {
    this.#isCancelled = true;
    if (this.#ref !== null && this.#wire.send({ type: "cancel", ref: this.#ref })) return;
    if ("request" in this.stream.wanted) {
      this.stream.fail(new WetinkError("withdrawn", "withdrawn before the stream began"));
    }
  }

  ack(at: number, part: number): boolean {
    return this.#stage === "open" && this.#wire.send({ type: "ack", ref: this.#ref, at, part });
  }

  /** A WebSocket cannot be read slowly in a browser: the attachment ends, and the server merges. */
  pause(): void {
    if (this.#isPaused) return;
    this.#isPaused = true;
    this.#detach();
    this.stream.ended(lost("the reader is behind"));
  }

  resume(): void {
    if (!this.#isPaused) return;
    this.#isPaused = false;
    this.ask();
  }

  reconnect(): void {
    this.#wire.reconnect();
  }

  leave(): void {
    this.#detach();
    this.#wire.gone(this, this.#ref);
  }

  #detach(): void {
    // Where the answer to a start is under way, the generation may have begun.
    const isStarting = this.#stage === "asked" && "request" in this.stream.wanted;
    if (this.#stage === "open" || this.#stage === "asked") {
      this.#wire.send({ type: isStarting ? "cancel" : "detach", ref: this.#ref });
    }
    this.#stage = "detached";
  }

  /** The attachment is over, the connection is not. */
  #ended(error: WetinkError): void {
    this.#stage = "detached";
    const why = this.stream.ended(error);
    if (why === null) return;
    const ms = this.#backoff.next(why.retryAfterMs);
    if (ms === null) {
      this.stream.fail(why);
      return;
    }
    this.#stage = "resting";
    void wait(ms).then(() => {
      if (this.#stage === "resting") this.#stage = "detached";
      if (this.stream.wantsMore) this.ask();
    });
  }
}
