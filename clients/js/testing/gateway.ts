/** A real gateway, in its own process. */

import { execFileSync, spawn, type ChildProcess } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

/** Where `make` installs the command. */
const WETINK = fileURLToPath(new URL("../../../.venv/bin/wetink", import.meta.url));
const KEY = /wetink_[\w-]+/;
const ADDRESS = / at (http:\S+)$/;
/** A browser waits so long before it reconnects; the default of a second only makes tests slow. */
const RETRY_S = "0.05";

export type Trace = readonly object[];

export class Gateway {
  readonly url: string;
  /** What it asks for; null where it serves anyone. */
  readonly key: string | null;
  readonly #process: ChildProcess;
  /** What it reads; goes with it. */
  readonly #folder: string;

  private constructor(url: string, key: string | null, process: ChildProcess, folder: string) {
    this.url = url;
    this.key = key;
    this.#process = process;
    this.#folder = folder;
  }

  /** Serves each trace as a model of that name. */
  static async start(
    traces: Readonly<Record<string, Trace>>,
    { keyed = false, origins = [] }: { readonly keyed?: boolean; readonly origins?: readonly string[] } = {},
  ): Promise<Gateway> {
    const folder = mkdtempSync(join(tmpdir(), "wetink-traces-"));
    // Keys of whoever runs the tests are none of their business.
    const environment = {
      ...process.env,
      XDG_CONFIG_HOME: join(folder, "config"),
      WETINK_DELIVERY_RETRY_S: RETRY_S,
      ...(origins.length > 0 && { WETINK_SERVER_ALLOWED_ORIGINS: origins.join() }),
    };
    const key = keyed ? KEY.exec(execFileSync(WETINK, ["keys", "add", "test"], { env: environment, encoding: "utf8" })) : null;
    for (const [name, trace] of Object.entries(traces)) {
      writeFileSync(join(folder, `${name}.json`), JSON.stringify(trace));
    }
    return Gateway.#serve(["--trace", folder], environment, { key: key?.[0] ?? null, folder });
  }

  /** Serves the embedded model, as `wetink serve --demo` does. */
  static async embedded(): Promise<Gateway> {
    const folder = mkdtempSync(join(tmpdir(), "wetink-embedded-"));
    const environment = { ...process.env, XDG_CONFIG_HOME: folder, WETINK_DELIVERY_RETRY_S: RETRY_S };
    return Gateway.#serve(["--demo"], environment, { key: null, folder });
  }

  static async #serve(
    args: readonly string[],
    env: NodeJS.ProcessEnv,
    { key, folder }: { readonly key: string | null; readonly folder: string },
  ): Promise<Gateway> {
    const child = spawn(WETINK, ["serve", "--port", "0", ...args], { env, stdio: ["ignore", "pipe", "inherit"] });
    for await (const line of createInterface({ input: child.stdout })) {
      const url = ADDRESS.exec(line)?.[1];
      if (url !== undefined) return new Gateway(url, key, child, folder);
    }
    throw new Error("the gateway ended before it served");
  }

  /** Starts a stream that nobody reads yet, and gives the path of its events. */
  async generate(model: string): Promise<string> {
    const answer = await fetch(`${this.url}/v1/streams`, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ model, prompt: "hi" }),
    });
    if (answer.status !== 201) throw new Error(await answer.text());
    const { events } = (await answer.json()) as { events: string };
    return events;
  }

  /** `SIGKILL`: without a word to anybody, as in a power cut. */
  async stop(signal: "SIGTERM" | "SIGKILL" = "SIGTERM"): Promise<void> {
    const ended = new Promise((resolve) => this.#process.once("exit", resolve));
    this.#process.kill(signal);
    await ended;
    rmSync(this.#folder, { recursive: true });
  }
}
