/**
 * One generation, read as four readers would. A connection reads a stream once, so each has its own;
 * the engine's goes on while those of the panes are cut.
 */

import { connect, type Connection, type GenerationRequest, type Stream, type WetinkError } from "wetink";
import { type Entry, PANES, type Question, type Reading, type Recording } from "./recording.js";
import { Stage } from "./stage.js";

/** How long a cut lasts: long enough to see that the others write on. */
export const CUT_MS = 2500;
/** A demonstration must not outlast the patience of whoever watches. */
const RETRY = { attempts: 60, firstMs: 150, longestMs: 500 };

export function policyOf(reading: Reading, question: Question): GenerationRequest["policy"] {
  if (reading === "chunk") return { kind: "chunk", unit: "sentence" };
  if (reading === "hold") return { kind: "hold" };
  if (reading === "engine" || question.budget >= 1) return { kind: "retract" };
  return { kind: "retract", budget: question.budget };
}

/** What the question is to the gateway. */
export function requestOf(question: Question, reading: Reading = "hold"): GenerationRequest {
  const { prompt, model, max_tokens, temperature, seed, drafter, draft_length } = question;
  const draft: { drafter?: string; length?: number } = {};
  if (drafter !== undefined) draft.drafter = drafter;
  if (draft_length !== undefined) draft.length = draft_length;
  return {
    messages: [{ role: "user", content: prompt }],
    ...(model === undefined ? {} : { model }),
    max_tokens,
    temperature,
    ...(seed === undefined ? {} : { seed }),
    ...(Object.keys(draft).length === 0 ? {} : { draft: draft as NonNullable<GenerationRequest["draft"]> }),
    policy: policyOf(reading, question),
  } as GenerationRequest;
}

export interface LiveOptions {
  readonly question: Question;
  readonly verifyDelay: number | null;
  /** Null where the gateway asks for none. */
  readonly key: string | null;
  /** Something is to be shown. */
  readonly onChange: () => void;
  readonly onEnd: (failure: WetinkError | null) => void;
  readonly onCut: (isCut: boolean) => void;
}

export class Live {
  readonly stage = new Stage();
  model = "";
  seed: number | null = null;
  #isCut = false;
  #isOver = false;
  readonly #options: LiveOptions;
  readonly #began = performance.now();
  readonly #entries: Entry[] = [];
  readonly #connections: Connection[] = [];
  readonly #engine: Stream;

  constructor(options: LiveOptions) {
    this.#options = options;
    this.#engine = this.#connect("engine").start({
      ...requestOf(options.question, "engine"),
      include: ["tokens", "confidence"],
    });
    void this.#read();
  }

  /** Milliseconds since the run began. */
  get now(): number {
    return performance.now() - this.#began;
  }

  get recording(): Recording {
    const { question, verifyDelay } = this.#options;
    const asked = this.seed === null ? question : { ...question, seed: this.seed };
    return { question: asked, model: this.model, verify_delay_ms: verifyDelay, entries: this.#entries };
  }

  /** Ends the generation; what was committed stands. */
  stop(): void {
    void this.#engine.cancel();
  }

  /** Leaves everything as it is. */
  leave(): void {
    this.#isOver = true;
    for (const connection of this.#connections) connection.close();
  }

  /** The network of all panes is gone for a while; the engine's own reading goes on. */
  cut(): void {
    if (this.#isCut || this.#isOver) return;
    this.#isCut = true;
    this.#options.onCut(true);
    for (const connection of this.#connections.slice(1)) connection.reconnect();
    setTimeout(() => {
      this.#isCut = false;
      this.#options.onCut(false);
    }, CUT_MS);
  }

  #connect(reading: Reading): Connection {
    const { key } = this.#options;
    const connection = connect("", {
      retry: RETRY,
      ...(key !== null && { key }),
      socket: (url, protocols) => {
        if (this.#isCut && reading !== "engine") throw new Error("the connection is cut");
        return new WebSocket(url, protocols);
      },
    });
    this.#connections.push(connection);
    return connection;
  }

  async #read(): Promise<void> {
    let failure: WetinkError | null = null;
    try {
      const others: Promise<void>[] = [];
      for await (const event of this.#engine) {
        if (event.type === "open" && others.length === 0) {
          this.model = event.model;
          this.seed = event.seed;
          others.push(...PANES.map((reading) => this.#attach(reading, event.stream ?? "")));
        }
        this.#take("engine", event);
      }
      await this.#engine.finished;
      await Promise.all(others);
    } catch (error) {
      failure = error as WetinkError;
    }
    if (!this.#isOver) this.#options.onEnd(failure);
    this.leave();
  }

  async #attach(reading: Reading, id: string): Promise<void> {
    const stream = this.#connect(reading).attach(id, { policy: policyOf(reading, this.#options.question) ?? "hold" });
    for await (const event of stream) this.#take(reading, event);
    await stream.finished;
  }

  #take(reading: Reading, event: Entry["event"]): void {
    if (this.#isOver) return;
    const entry = { t: this.now, reading, event };
    this.#entries.push(entry);
    this.stage.apply(entry);
    this.#options.onChange();
  }
}
