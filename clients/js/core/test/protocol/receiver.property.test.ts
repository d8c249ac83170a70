import * as fc from "fast-check";
import { expect, test } from "vitest";

import { checkDigest, indexAt, lengthIn, Receiver, type OffsetUnit, SseParser } from "../../src/protocol/index.js";
import { anyText, anyUnit } from "./arbitraries.js";
import { type Action, ScriptedServer } from "./scripted-server.js";

/** The server acts, or the connection is cut after a share of the bytes in flight arrived. */
type Step = Action | { readonly do: "cut"; readonly arrived: number; readonly afresh: boolean };

const few = fc.integer({ min: 1, max: 4 });
const anyStep: fc.Arbitrary<Step> = fc.oneof(
  fc.record({ do: fc.constant("draft" as const), text: anyText }),
  fc.record({ do: fc.constant("foresee" as const), n: few }),
  fc.record({ do: fc.constant("verify" as const), n: few }),
  fc.record({ do: fc.constant("withhold" as const), n: few }),
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
  receiver: Receiver;
  readonly #truth: readonly string[];
  readonly #unit: OffsetUnit;
  readonly #parser = new SseParser();
  #painted = "";
  /** Part of the first `open` of the present receiver. */
  #firstPart = 0;
  /** The offset up to which this attachment was told that its part is verified. */
  #sure = 0;

  constructor(truth: readonly string[], unit: OffsetUnit) {
    this.#truth = truth;
    this.#unit = unit;
    this.receiver = new Receiver({ unit });
  }

  read(bytes: Uint8Array): void {
    for (const { data } of this.#parser.feed(bytes)) {
      const partsBefore = this.receiver.parts.length;
      const change = this.receiver.receiveJson(data);
      expect(this.receiver.failure).toBeNull();
      if (this.receiver.parts.length > Math.max(partsBefore, 1)) this.#painted = "";
      if (change !== null) {
        expect(this.#painted.endsWith(change.erased)).toBe(true);
        const kept = this.#painted.length - change.erased.length;
        this.#painted = this.#painted.slice(0, kept) + change.appended;
      }
      expect(this.receiver.committed + this.receiver.tail).toBe(this.#painted);
      for (const [index, part] of this.receiver.parts.entries()) {
        const truth = this.#truth[this.#firstPart + index] ?? "";
        expect(part.complete ? truth : truth.slice(0, part.committed.length)).toBe(part.committed);
      }
      this.#expectVerified(JSON.parse(data));
    }
    expect(this.#parser.failure).toBeNull();
    expect(this.receiver.cursor).toBe(this.#parser.lastEventId);
  }

  /** Verified is what was said to be, and that is the truth. */
  #expectVerified(event: { type: string; at: number; verified?: number }): void {
    if (event.type === "part" || event.type === "open") this.#sure = 0;
    this.#sure = Math.max(this.#sure, event.verified ?? 0);
    const part = this.receiver.parts.at(-1);
    if (part === undefined) return;
    const { index, committed, verifiedTail } = part;
    const truth = this.#truth[index] ?? "";
    const end = Math.max(committed.length, indexAt(truth, this.#sure, this.#unit) ?? Number.NaN);
    expect(verifiedTail).toBe(truth.slice(committed.length, end));
  }

  /** Returns the cursor to resume at. */
  lose(afresh: boolean): string | null {
    this.#parser.reset();
    this.receiver.interrupted();
    const { cursor, committed } = this.receiver;
    if (afresh && cursor !== null) {
      this.receiver = new Receiver({ unit: this.#unit, cursor, held: committed });
      this.#firstPart = Number(cursor.split(".")[1]);
      this.#painted = committed;
    }
    return cursor;
  }

  expectWhole(): void {
    expect(this.receiver.state).toBe("finished");
    expect(this.receiver.tail).toBe("");
    const texts = this.receiver.parts.map((part) => part.committed);
    expect(texts).toEqual(this.#truth.slice(this.#firstPart));
    expect(this.receiver.parts.every((part) => part.complete)).toBe(true);
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
    const verdict = reader.receiver.digestClaim === null ? "unknown" : "match";
    expect(await checkDigest(reader.receiver)).toBe(verdict);
  });
  await fc.assert(property, { numRuns: 500 });
});

test("a reader distrusts a server that takes back what it called verified", () => {
  const someText = fc.string({ unit: "grapheme", minLength: 2, maxLength: 8 });
  const property = fc.property(someText, anyText, anyUnit, fc.nat(), fc.boolean(), (sure, draft, unit, share, retracts) => {
    const reader = new Receiver({ unit });
    const open = { type: "open", v: 1, stream: "s", epoch: 7, model: "m", policy: {}, offsets: unit, part: 0, at: 0 };
    reader.receiveJson(JSON.stringify(open));
    const verified = lengthIn(sure, unit);
    const end = verified + lengthIn(draft, unit);
    reader.receiveJson(JSON.stringify({ type: "tentative", at: 0, text: sure + draft, verified }));
    expect(reader.verifiedTail).toBe(sure);
    const at = share % verified;
    const broken = retracts
      ? { type: "retract", at, n: end - at, cause: "draft_rejected" }
      : { type: "tentative", at: end, text: "x", verified: at };
    reader.receiveJson(JSON.stringify(broken));
    expect(reader.failure?.code).toBe("protocol_violation");
    expect([reader.committed, reader.tail]).toEqual(["", ""]);
  });
  fc.assert(property, { numRuns: 300 });
});
