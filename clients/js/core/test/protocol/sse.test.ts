import * as fc from "fast-check";
import { describe, expect, test } from "vitest";

import { type SseEvent, SseParser } from "../../src/protocol/index.js";
import { chunks } from "./arbitraries.js";

const encode = (text: string): Uint8Array => new TextEncoder().encode(text);

/** Pieces that meet in every way that matters: line ends, fields, BOM, wide characters. */
const anyStream = fc
  .array(
    fc.constantFrom(
      "\r",
      "\n",
      "\r\n",
      "\n\n",
      "data",
      "data: ",
      "data:",
      "event: commit",
      "id: 7.0.3",
      "id",
      "id: a\0b",
      "retry: 250",
      "retry: x",
      ": comment",
      ":",
      " ",
      "x",
      "é",
      "😀",
      "\uFEFF",
    ),
    { maxLength: 40 },
  )
  .map((pieces) => pieces.join(""));

/** The same by the letter of the standard, on a whole text at once. */
function parseWhole(stream: string): { events: SseEvent[]; retry: number | null; id: string | null } {
  const events: SseEvent[] = [];
  let [event, data] = ["", ""];
  let [id, lastId]: (string | null)[] = [null, null];
  let retry: number | null = null;
  const lines = stream.replace(/^\uFEFF/, "").split(/\r\n|\r|\n/);
  for (const line of lines.slice(0, -1)) {
    if (line === "") {
      lastId = id;
      if (data !== "") events.push({ event: event || "message", data: data.slice(0, -1), id: id ?? null });
      [event, data] = ["", ""];
    } else if (!line.startsWith(":")) {
      const [, name, value = ""] = /^([^:]*)(?:: ?(.*))?$/su.exec(line) ?? [];
      if (name === "event") event = value;
      if (name === "data") data += `${value}\n`;
      if (name === "id" && !value.includes("\0")) id = value;
      if (name === "retry" && /^[0-9]+$/.test(value)) retry = Number(value);
    }
  }
  return { events, retry, id: lastId ?? null };
}

describe("SseParser", () => {
  test.each([
    ["bytes", encode],
    ["strings", (text: string) => text],
  ] as const)("gives what the standard gives for any chunking of %s", (_, convert) => {
    const streamAndPieces = anyStream.chain((stream) =>
      fc.tuple(fc.constant(stream), chunks<Uint8Array | string>(convert(stream))),
    );
    fc.assert(
      fc.property(streamAndPieces, ([stream, pieces]) => {
        const parser = new SseParser();
        const events = pieces.flatMap((piece) => parser.feed(piece));
        const { lastEventId: id, retry } = parser;
        expect({ events, retry, id }).toEqual(parseWhole(stream));
        expect(parser.failure).toBeNull();
      }),
      { numRuns: 1000 },
    );
  });

  test("fails on an event beyond the bound and starts anew after reset", () => {
    const parser = new SseParser({ maxEventBytes: 20 });
    expect(parser.feed("data: 12345678901234\n\n")).toHaveLength(1);
    expect(parser.feed("data: 1\n\ndata: 12345678901")).toHaveLength(1);
    expect(parser.failure).toBeNull();
    expect(parser.feed("2345")).toEqual([]);
    expect(parser.failure).toMatchObject({ code: "protocol_violation" });
    expect(parser.feed("\n\ndata: 1\n\n")).toEqual([]);
    parser.reset();
    expect(parser.failure).toBeNull();
    expect(parser.feed("data: 1\n\n")).toHaveLength(1);
  });

  test("counts the data of an event of many lines against the bound", () => {
    const parser = new SseParser({ maxEventBytes: 20 });
    for (let line = 0; line < 10; line += 1) parser.feed("data: 12\n");
    expect(parser.failure).toMatchObject({ code: "protocol_violation" });
  });

  test("counts data lines without text against the bound", () => {
    const parser = new SseParser({ maxEventBytes: 20 });
    for (let line = 0; line < 30; line += 1) parser.feed("data\n");
    expect(parser.failure).toMatchObject({ code: "protocol_violation" });
  });

  test.each([
    ["data: é", 7, "a value"],
    ["foo: é", 6, "an unknown field's value"],
  ])("refuses bytes that are not UTF-8 in %s, cut at %i (%s)", (line, end) => {
    const parser = new SseParser();
    const bytes = Buffer.concat([
      encode("data: 1\n\n"),
      encode(line).subarray(0, end),
      encode("\ndata: 2\n\n"),
    ]);
    expect(parser.feed(new Uint8Array(bytes))).toEqual([{ event: "message", data: "1", id: null }]);
    expect(parser.failure).toMatchObject({ code: "protocol_violation" });
  });

  test("does not read the bytes of a comment", () => {
    const parser = new SseParser();
    expect(parser.feed(Uint8Array.of(0x3a, 0xff, 0x0a))).toEqual([]);
    expect(parser.feed("data: 1\n\n")).toHaveLength(1);
    expect(parser.failure).toBeNull();
  });

  test("holds nothing of comments, however many there are", () => {
    const parser = new SseParser({ maxEventBytes: 20 });
    for (let line = 0; line < 100; line += 1) parser.feed(": still alive\n");
    expect(parser.failure).toBeNull();
  });

  test("forgets half an event on reset but keeps id and retry", () => {
    const parser = new SseParser();
    parser.feed("retry: 9\nid: a\ndata: 1\n\nid: b\ndata: lost");
    parser.feed(encode("é").slice(0, 1));
    parser.reset();
    expect(parser.feed("\uFEFFdata: 2\n\n")).toEqual([{ event: "message", data: "2", id: "a" }]);
    expect(parser.lastEventId).toBe("a");
    expect(parser.retry).toBe(9);
  });
});
