/** A proxy in front of a gateway that cuts the first event stream before a given text. */

import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";

export interface Request {
  readonly lastEventId: string | null;
  readonly status: number;
}

export class CuttingProxy {
  /** Requests for events, in order. */
  readonly requests: Request[] = [];
  readonly #target: string;
  readonly #server: Server;
  #cutBefore: string | null;
  /** Cuts the connection, once the reader has what was sent before the cut. */
  #cut: { readonly messages: number; readonly response: ServerResponse } | null = null;

  constructor(target: string, cutBefore: string | null) {
    this.#target = target;
    this.#cutBefore = cutBefore;
    this.#server = createServer((request, response) => void this.#serve(request, response));
  }

  /** Begins to listen and gives its address. */
  async listen(): Promise<string> {
    await new Promise<void>((resolve) => this.#server.listen(0, "127.0.0.1", resolve));
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  /** The reader has so many messages in all; a cut waits until it has everything sent before. */
  heard(messages: number): void {
    if (this.#cut === null || messages < this.#cut.messages) return;
    this.#cut.response.destroy();
    this.#cut = null;
  }

  async close(): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    if (request.url === "/") {
      response.writeHead(200, { "Content-Type": "text/html" }).end("<title>wetink</title>");
      return;
    }
    const lastEventId = (request.headers["last-event-id"] ?? null) as string | null;
    const upstream = await fetch(this.#target + request.url, {
      headers: lastEventId === null ? {} : { "Last-Event-ID": lastEventId },
    });
    this.requests.push({ lastEventId, status: upstream.status });
    response.writeHead(upstream.status, {
      "Content-Type": upstream.headers.get("Content-Type") ?? "text/plain",
    });
    let body = "";
    for await (const chunk of upstream.body?.pipeThrough(new TextDecoderStream()) ?? []) {
      body += chunk;
      if (this.#cutBefore !== null && body.includes(this.#cutBefore)) {
        const whole = body.slice(0, body.lastIndexOf("\n\n", body.indexOf(this.#cutBefore)) + 2);
        this.#cutBefore = null;
        this.#cut = { messages: whole.split("\n").filter(isData).length, response };
        response.write(whole);
        return;
      }
      if (this.#cutBefore === null) {
        response.write(body);
        body = "";
      }
    }
    response.end(body);
  }
}

function isData(line: string): boolean {
  return line.startsWith("data:");
}
