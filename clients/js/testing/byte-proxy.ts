/** A TCP proxy that cuts a connection after so many bytes of the server's. */

import { connect, createServer, type AddressInfo, type Server, type Socket } from "node:net";

export class ByteProxy {
  /** Connections so far. */
  connections = 0;
  /** Where new connections go. */
  target: string;
  #cuts: readonly number[];
  readonly #server: Server;
  readonly #open = new Set<Socket>();

  /** Connection i is cut after `cuts[i]` bytes; those after the last are left alone. */
  constructor(target: string, cuts: readonly number[] = []) {
    this.target = target;
    this.#cuts = cuts;
    this.#server = createServer((socket) => this.#serve(socket));
  }

  /** Begins to listen and gives its address. */
  async listen(): Promise<string> {
    await new Promise<void>((resolve) => this.#server.listen(0, "127.0.0.1", resolve));
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  /** Cuts every connection there is. */
  cut(): void {
    for (const socket of this.#open) socket.destroy();
  }

  /** Cuts every connection, and the next ones after so many bytes. */
  cutNext(cuts: readonly number[]): void {
    this.connections = 0;
    this.#cuts = cuts;
    this.cut();
  }

  async close(): Promise<void> {
    const closed = new Promise((resolve) => this.#server.close(resolve));
    this.cut();
    await closed;
  }

  #serve(socket: Socket): void {
    let left = this.#cuts[this.connections] ?? Number.POSITIVE_INFINITY;
    this.connections += 1;
    const { hostname, port } = new URL(this.target);
    const upstream = connect(Number(port), hostname);
    for (const end of [socket, upstream]) {
      this.#open.add(end);
      end.setNoDelay(true);
      end.on("error", () => {});
      end.on("close", () => {
        this.#open.delete(end);
        socket.destroy();
        upstream.destroy();
      });
    }
    socket.pipe(upstream);
    upstream.on("data", (bytes: Buffer) => {
      const passed = bytes.subarray(0, left);
      left -= passed.length;
      // The bytes before the cut arrive; then the connection is gone.
      socket.write(passed, () => left === 0 && socket.destroy());
    });
  }
}
