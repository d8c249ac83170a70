import { afterEach, describe, expect, test, vi } from "vitest";

import {
  checkDigest,
  ClientStream,
  decodeEvent,
  LocalProtocolError,
  RemoteProtocolError,
  RequestError,
  type ServerEvent,
} from "../src/index.js";

type Fields = Readonly<Record<string, unknown>>;

function event(type: ServerEvent["type"], fields: Fields = {}): ServerEvent {
  const decoded = decodeEvent(JSON.stringify({ type, ...fields }));
  if (decoded === null) throw new Error(`${type} is unknown`);
  return decoded;
}

function open(fields: Fields = {}): ServerEvent {
  return event("open", {
    v: 1,
    epoch: 7,
    model: "m",
    policy: {},
    offsets: "codepoint",
    part: 0,
    at: 0,
    ...fields,
  });
}

function finish(at: number, digest: string): ServerEvent {
  return event("finish", { at, reason: "stop", usage: {}, stats: {}, digest });
}

function opened(): ClientStream {
  const stream = new ClientStream();
  expect(stream.receive(open())).toBeNull();
  return stream;
}

function finished(digest: string): ClientStream {
  const stream = opened();
  stream.receive(event("commit", { at: 0, text: "ab" }));
  expect(stream.digestClaim).toBeNull();
  stream.receive(finish(2, digest));
  return stream;
}

const DIGEST_OF_AB = "fb8e20fc2e4c3f248c60c39bd652f3c1347298bb977b8b4d5903b85055620603";

afterEach(() => vi.unstubAllGlobals());

describe("a reader", () => {
  test("tells what an event did to the visible text", () => {
    const stream = opened();
    const nothing = { committed: "", erased: "", cause: null, appended: "" };
    expect(stream.receive(event("tentative", { at: 0, text: "abc" }))).toEqual({
      ...nothing,
      appended: "abc",
    });
    expect(stream.receive(event("commit", { at: 0, text: "a" }))).toEqual({
      ...nothing,
      committed: "a",
    });
    const retract = { at: 2, n: 1, cause: "draft_rejected" };
    expect(stream.receive(event("commit", { at: 1, text: "bX", retract }))).toEqual({
      committed: "bX",
      erased: "c",
      cause: "draft_rejected",
      appended: "X",
    });
    stream.receive(event("tentative", { at: 3, text: "de" }));
    expect(stream.receive(event("retract", { at: 4, n: 1, cause: "cancelled" }))).toEqual({
      ...nothing,
      erased: "e",
      cause: "cancelled",
    });
    expect(stream.receive(event("heartbeat"))).toBeNull();
    stream.interrupted();
    expect(stream.tail).toBe("d");
    expect(stream.receive(open({ at: 3 }))).toEqual({ ...nothing, erased: "d" });
    expect(stream.committed).toBe("abX");
  });

  test("tells that the tail is gone when it fails", () => {
    const stream = opened();
    stream.receive(event("tentative", { at: 0, text: "abc" }));
    expect(stream.receive(event("tentative", { at: 1, text: "d" }))).toEqual({
      committed: "",
      erased: "abc",
      cause: "gap",
      appended: "",
    });
    expect(stream.receive(event("heartbeat"))).toBeNull();
  });

  test("fails for good on a violation and until the next attachment on a gap", () => {
    const violated = opened();
    violated.receive(open());
    violated.interrupted();
    expect(violated.state).toBe("failed");
    expect(violated.failure).toMatchObject({ code: "protocol_violation", retryable: false });

    const missed = opened();
    missed.receive(event("commit", { at: 1, text: "a" }));
    expect(missed.failure).toMatchObject({ code: "gap", retryable: true });
    missed.interrupted();
    expect(missed.state).toBe("interrupted");
    expect(missed.failure).toBeNull();
  });

  test("fails where its transport found the server at fault", () => {
    const stream = opened();
    stream.receive(event("tentative", { at: 0, text: "a" }));
    expect(stream.reject(new RemoteProtocolError("too long"))).toMatchObject({ erased: "a" });
    expect(stream.failure).toEqual({
      code: "protocol_violation",
      message: "too long",
      retryable: false,
    });
  });

  test("knows a part as complete only when the next one or the end came", () => {
    const stream = opened();
    stream.receive(event("commit", { at: 0, text: "ab" }));
    expect(stream.parts.map((part) => part.complete)).toEqual([false]);
    stream.receive(event("part", { part: 1, kind: "tool_call", name: "f" }));
    expect(stream.parts.map((part) => part.complete)).toEqual([true, false]);
    expect(stream.kind).toBe("tool_call");
    stream.receive(finish(0, DIGEST_OF_AB));
    expect(stream.parts.map((part) => part.complete)).toEqual([true, true]);
    expect(stream.finish).toMatchObject({ reason: "stop" });
  });

  test("is finished and without a tail when there is nothing more to resume", () => {
    const stream = opened();
    stream.receive(event("tentative", { at: 0, text: "a" }));
    stream.interrupted();
    stream.nothingMore();
    expect([stream.state, stream.tail, stream.parts[0]?.complete]).toEqual(["finished", "", true]);
    expect(() => stream.nothingMore()).toThrow(LocalProtocolError);
  });

  test("refuses to begin with a cursor that is none or text that does not end there", () => {
    expect(() => new ClientStream({ cursor: "7.0" })).toThrow(RequestError);
    expect(() => new ClientStream({ cursor: "7.0.1", held: "😀", unit: "utf-16" })).toThrow(
      LocalProtocolError,
    );
    const stream = new ClientStream({ cursor: "7.0.1", held: "😀" });
    expect([stream.committed, stream.cursor, stream.kind]).toEqual(["😀", "7.0.1", "text"]);
  });
});

describe("the digest", () => {
  test("that matches leaves the stream finished", async () => {
    const stream = finished(DIGEST_OF_AB);
    expect(stream.digestClaim).toEqual({ text: "ab", digest: DIGEST_OF_AB });
    expect(await checkDigest(stream)).toBe("match");
    expect(stream.state).toBe("finished");
  });

  test("that does not match means the stream has failed", async () => {
    const stream = finished("00");
    expect(await checkDigest(stream)).toBe("mismatch");
    expect(stream.state).toBe("failed");
    expect(stream.failure).toMatchObject({ code: "protocol_violation", retryable: false });
    expect(stream.finish).toBeNull();
    expect(stream.parts[0]?.complete).toBe(false);
    expect(await checkDigest(stream)).toBe("unknown");
    expect(() => stream.refuteDigest()).toThrow(LocalProtocolError);
  });

  test("stays unknown where the platform cannot hash", async () => {
    const stream = finished("00");
    vi.stubGlobal("crypto", {});
    expect(await checkDigest(stream)).toBe("unknown");
    vi.stubGlobal("crypto", undefined);
    expect(await checkDigest(stream)).toBe("unknown");
    expect(stream.state).toBe("finished");
  });

  test("stays unknown to a reader that does not hold the beginning", async () => {
    const stream = new ClientStream({ cursor: "7.1.0" });
    stream.receive(open({ part: 1 }));
    stream.receive(finish(0, "00"));
    expect(stream.state).toBe("finished");
    expect(await checkDigest(stream)).toBe("unknown");
  });
});
