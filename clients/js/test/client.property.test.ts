import * as fc from "fast-check";
import { expect, test } from "vitest";

import { checkDigest, ClientStream, type OffsetUnit, SseParser } from "../src/index.js";
import { anyText, anyUnit } from "./arbitraries.js";
import { type Action, ScriptedServer } from "./scripted-server.js";

/** The server acts, or the connection is cut after a share of the bytes in flight arrived. */
type Step = Action | { readonly do: "cut"; readonly arrived: number; readonly afresh: boolean };

const few = fc.integer({ min: 1, max: 4 });
const anyStep: fc.Arbitrary<Step> = fc.oneof(
  fc.record({ do: fc.constant("draft" as const), text: anyText }),
  fc.record({ do: fc.constant("foresee" as const), n: few }),
  fc.record({ do: fc.constant("verify" as const), n: few }),
  fc.record({ do: fc.constant("retract" as const), n: fc.nat({ max: 3 }) }),
  fc.record({ do: fc.constant("heartbeat" as const) }),
  fc.record({
    do: fc.constant("cut" as const),
    arrived: fc.double({ min: 0, max: 1, noNaN: true }),
    afresh: fc.boolean(),
  }),
);

/** What a page would show, painted from the changes alone and held against the truth. */
class Reader {
  stream: ClientStream;
  readonly #truth: readonly string[];
  readonly #unit: OffsetUnit;
  readonly #parser = new SseParser();
  #painted = "";
  /** Part of the first `open` of the present stream object. */
  #firstPart = 0;

  constructor(truth: readonly string[], unit: OffsetUnit) {
    this.#truth = truth;
    this.#unit = unit;
    this.stream = new ClientStream({ unit });
  }

  read(bytes: Uint8Array): void {
    for (const { data } of this.#parser.feed(bytes)) {
      const partsBefore = this.stream.parts.length;
      const change = this.stream.receiveJson(data);
      expect(this.stream.failure).toBeNull();
      if (this.stream.parts.length > Math.max(partsBefore, 1)) this.#painted = "";
      if (change !== null) {
        expect(this.#painted.endsWith(change.erased)).toBe(true);
        const kept = this.#painted.length - change.erased.length;
        this.#painted = this.#painted.slice(0, kept) + change.appended;
      }
      expect(this.stream.committed + this.stream.tail).toBe(this.#painted);
      for (const [index, part] of this.stream.parts.entries()) {
        const truth = this.#truth[this.#firstPart + index] ?? "";
        expect(part.complete ? truth : truth.slice(0, part.committed.length)).toBe(part.committed);
      }
    }
    expect(this.#parser.failure).toBeNull();
    expect(this.stream.cursor).toBe(this.#parser.lastEventId);
  }

  /** Returns the cursor to resume at. */
  lose(afresh: boolean): string | null {
    this.#parser.reset();
    this.stream.interrupted();
    const { cursor, committed } = this.stream;
    if (afresh && cursor !== null) {
      this.stream = new ClientStream({ unit: this.#unit, cursor, held: committed });
      this.#firstPart = Number(cursor.split(".")[1]);
      this.#painted = committed;
    }
    return cursor;
  }

  expectWhole(): void {
    expect(this.stream.state).toBe("finished");
    expect(this.stream.tail).toBe("");
    const texts = this.stream.parts.map((part) => part.committed);
    expect(texts).toEqual(this.#truth.slice(this.#firstPart));
    expect(this.stream.parts.every((part) => part.complete)).toBe(true);
  }
}

test("a reader ends with the same text wherever the connection was cut", async () => {
  const anyTruth = fc.array(anyText, { minLength: 1, maxLength: 3 });
  const anySteps = fc.array(anyStep, { maxLength: 30 });
  const property = fc.asyncProperty(anyTruth, anyUnit, anySteps, async (truth, unit, steps) => {
    const server = new ScriptedServer(truth, unit);
    const reader = new Reader(truth, unit);
    let inFlight = server.attach(null);
    for (const step of steps) {
      if (step.do === "cut") {
        const bytes = new TextEncoder().encode(inFlight);
        reader.read(bytes.subarray(0, Math.floor(step.arrived * bytes.length)));
        inFlight = server.attach(reader.lose(step.afresh));
      } else {
        inFlight += server.act(step);
      }
    }
    reader.read(new TextEncoder().encode(inFlight + server.finish()));
    reader.expectWhole();
    const verdict = reader.stream.digestClaim === null ? "unknown" : "match";
    expect(await checkDigest(reader.stream)).toBe(verdict);
  });
  await fc.assert(property, { numRuns: 500 });
});
