/** Every conformance case that concerns a reader, from the files all languages run. */

import { readdirSync, readFileSync } from "node:fs";

import { describe, expect, test } from "vitest";

import {
  checkDigest,
  formatCursor,
  Receiver,
  indexAt,
  lengthIn,
  type OffsetUnit,
  parseCursor,
  RequestError,
  SseParser,
} from "../../src/protocol/index.js";

const FOLDER = new URL("../../../../../tests/vectors/", import.meta.url);

interface Case {
  readonly name: string;
  readonly spec: string;
}

interface ExpectedText {
  readonly parts: readonly { kind: string; name?: string; text: string }[];
  readonly tail?: string;
  readonly state?: string;
  readonly cursor?: string;
  readonly failure?: string;
  /** Index of the event that fails. */
  readonly after?: number;
  readonly retryable?: boolean;
  readonly verified_tail?: string;
}

interface ReceiverCase extends Case {
  readonly offsets: OffsetUnit;
  readonly resume?: string;
  readonly held?: string;
  readonly events: readonly unknown[];
  readonly expect: ExpectedText;
}

interface StreamCase extends Case {
  readonly offsets: OffsetUnit;
  /** Bytes of one attachment after the other; null: the resume is answered with HTTP 204. */
  readonly attachments: readonly (string | null)[];
  readonly resume?: string;
  readonly every_split: boolean;
  readonly expect: ExpectedText;
}

interface SseCase extends Case {
  readonly chunks_hex: readonly string[];
  /** The same bytes for a reader of this file. */
  readonly readable: string;
  readonly every_split: boolean;
  readonly max_event_bytes?: number;
  readonly expect: {
    readonly events: readonly { event: string; data: string; id?: string }[];
    readonly retry?: number;
    readonly last_event_id?: string;
    readonly failure?: string;
  };
}

interface UnitsCase extends Case {
  readonly text: string;
  readonly lengths: Readonly<Record<OffsetUnit, number>>;
  readonly boundaries: Readonly<Partial<Record<OffsetUnit, readonly [number, number][]>>>;
  readonly inside?: Readonly<Partial<Record<OffsetUnit, readonly number[]>>>;
}

interface CursorCase extends Case {
  readonly text: string;
  readonly expect:
    | {
        readonly epoch: number;
        readonly part: number;
        readonly offset: number;
        readonly mark?: string;
      }
    | { readonly failure: string };
}

/** How to run a case of each kind, and which fields it may have: a new one must not go unseen. */
const KINDS: Readonly<
  Record<string, { fields: readonly string[]; run: (from: never) => void | Promise<void> }>
> = {
  receiver: { fields: ["offsets", "resume", "held", "events", "expect"], run: runReceiver },
  stream: { fields: ["offsets", "resume", "attachments", "every_split", "expect"], run: runStream },
  sse: {
    fields: ["chunks_hex", "readable", "every_split", "max_event_bytes", "expect"],
    run: runSse,
  },
  units: { fields: ["text", "lengths", "boundaries", "inside"], run: runUnits },
  cursor: { fields: ["text", "expect"], run: runCursor },
};

/** Kinds that concern the server's side alone. */
const NOT_A_RECEIVERS = new Set(["sender"]);

async function runReceiver(from: ReceiverCase): Promise<void> {
  const receiver = new Receiver({
    unit: from.offsets,
    ...(from.resume !== undefined && { cursor: from.resume }),
    ...(from.held !== undefined && { held: from.held }),
  });
  let failedAfter: number | undefined;
  for (const [index, event] of from.events.entries()) {
    await receive(receiver, JSON.stringify(event));
    if (receiver.failure !== null) failedAfter ??= index;
  }
  expectText(receiver, from.expect);
  expect(failedAfter).toBe(from.expect.after);
}

async function runStream(from: StreamCase): Promise<void> {
  const attachments = from.attachments.map((bytes) =>
    bytes === null ? null : new TextEncoder().encode(bytes),
  );
  const longest = Math.max(...attachments.map((bytes) => bytes?.length ?? 0));
  const ways = from.every_split ? everySplit(longest) : [];
  for (const cut of [whole, ...ways]) {
    expectText(await readAttachments(from, attachments, cut), from.expect);
  }
}

async function readAttachments(
  { offsets: unit, resume }: StreamCase,
  attachments: readonly (Uint8Array | null)[],
  cut: Cut,
): Promise<Receiver> {
  const receiver = new Receiver({ unit, ...(resume !== undefined && { cursor: resume }) });
  const parser = new SseParser();
  for (const [index, bytes] of attachments.entries()) {
    if (index > 0) {
      parser.reset();
      receiver.interrupted();
    }
    if (bytes === null) {
      receiver.nothingMore();
      break;
    }
    for (const { data } of cut(bytes).flatMap((chunk) => parser.feed(chunk))) {
      await receive(receiver, data);
    }
    if (parser.failure !== null) receiver.reject(parser.failure);
  }
  if (receiver.failure === null) receiver.interrupted();
  return receiver;
}

/** Apply one event, and what only hashing can tell about it. */
async function receive(receiver: Receiver, json: string): Promise<void> {
  receiver.receiveJson(json);
  await checkDigest(receiver);
}

function expectText(receiver: Receiver, expected: ExpectedText): void {
  const parts = receiver.parts.map(({ kind, name, committed: text }) =>
    name === null ? { kind, text } : { kind, name, text },
  );
  expect(parts).toEqual(expected.parts);
  expect(receiver.tail).toBe(expected.tail ?? "");
  expect(receiver.failure?.code).toBe(expected.failure);
  expect(receiver.state).toBe(expected.failure === undefined ? expected.state : "failed");
  if (expected.failure === undefined) expect(receiver.cursor).toBe(expected.cursor ?? null);
  if (expected.verified_tail !== undefined) {
    expect(receiver.verifiedTail).toBe(expected.verified_tail);
  }
  if (expected.retryable !== undefined) {
    expect(receiver.failure?.retryable).toBe(expected.retryable);
  }
}

type Cut = (bytes: Uint8Array) => Uint8Array[];

const whole: Cut = (bytes) => [bytes];
const bytewise: Cut = (bytes) => Array.from(bytes, (byte) => Uint8Array.of(byte));

/** Byte by byte, and in two at every place. */
function everySplit(length: number): Cut[] {
  const inTwo = Array.from(
    { length: length + 1 },
    (_, at): Cut =>
      (bytes) => [bytes.subarray(0, at), bytes.subarray(at)],
  );
  return [bytewise, ...inTwo];
}

function runSse(from: SseCase): void {
  const chunks = from.chunks_hex.map((hex) => new Uint8Array(Buffer.from(hex, "hex")));
  const bytes = new Uint8Array(Buffer.concat(chunks));
  const ways = from.every_split ? everySplit(bytes.length).map((cut) => cut(bytes)) : [];
  for (const pieces of [chunks, [bytes], ...ways]) {
    const options = from.max_event_bytes === undefined ? {} : { maxEventBytes: from.max_event_bytes };
    const parser = new SseParser(options);
    const events = pieces.flatMap((piece) => parser.feed(piece));
    // A vector leaves out what is empty.
    const found = events.map(({ event, data, id }) => (id ? { event, data, id } : { event, data }));
    const { retry, last_event_id: lastEventId, failure } = from.expect;
    expect(found).toEqual(from.expect.events);
    expect(parser.failure?.code).toBe(failure);
    expect(parser.retry).toBe(retry ?? null);
    if (lastEventId !== undefined) expect(parser.lastEventId).toBe(lastEventId);
  }
}

function runUnits(from: UnitsCase): void {
  const { text, lengths, boundaries, inside } = from;
  for (const [unit, length] of entries(lengths)) expect(lengthIn(text, unit)).toBe(length);
  for (const [unit, pairs] of entries(boundaries)) {
    for (const [offset, codePoints] of pairs) {
      const index = indexAt(text, offset, unit) ?? Number.NaN;
      expect(lengthIn(text.slice(0, index), "codepoint")).toBe(codePoints);
      expect(index).toBe(indexAt(text, codePoints, "codepoint"));
    }
  }
  for (const [unit, offsets] of entries(inside ?? {})) {
    for (const offset of offsets) expect(indexAt(text, offset, unit)).toBeNull();
  }
}

function entries<T>(of: Readonly<Partial<Record<OffsetUnit, T>>>): [OffsetUnit, T][] {
  return Object.entries(of) as [OffsetUnit, T][];
}

function runCursor(from: CursorCase): void {
  if ("failure" in from.expect) {
    const error = expect.objectContaining({ code: from.expect.failure });
    expect(() => parseCursor(from.text)).toThrow(RequestError);
    expect(() => parseCursor(from.text)).toThrow(error);
  } else {
    expect(parseCursor(from.text)).toEqual({ mark: null, ...from.expect });
    expect(formatCursor(parseCursor(from.text))).toBe(from.text);
  }
}

const files = readdirSync(FOLDER).filter((name) => name.endsWith(".json"));
const kindsSeen = new Set<string>();

for (const file of files) {
  const vectors = JSON.parse(readFileSync(new URL(file, FOLDER), "utf-8")) as {
    kind: string;
    cases: Case[];
  };
  kindsSeen.add(vectors.kind);
  describe(`${file} (${vectors.kind})`, () => {
    const kind = KINDS[vectors.kind];

    test("is of a known kind and has cases", () => {
      expect(vectors.cases.length).toBeGreaterThan(0);
      expect(kind !== undefined || NOT_A_RECEIVERS.has(vectors.kind)).toBe(true);
    });

    if (kind === undefined) return;
    const known = new Set(["name", "spec", ...kind.fields]);
    test.each(vectors.cases)("$spec $name", async (from) => {
      expect(Object.keys(from).filter((field) => !known.has(field))).toEqual([]);
      await kind.run(from as never);
    });
  });
}

test("every kind that concerns a reader has a file", () => {
  expect(Object.keys(KINDS).filter((kind) => !kindsSeen.has(kind))).toEqual([]);
});
