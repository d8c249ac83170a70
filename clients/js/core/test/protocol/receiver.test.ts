import { afterEach, describe, expect, test, vi } from "vitest";

import {
  checkDigest,
  Receiver,
  decodeEvent,
  LocalProtocolError,
  RemoteProtocolError,
  RequestError,
  type ServerEvent,
} from "../../src/protocol/index.js";

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

function opened(): Receiver {
  const receiver = new Receiver();
  expect(receiver.receive(open())).toBeNull();
  return receiver;
}

function finished(digest: string): Receiver {
  const receiver = opened();
  receiver.receive(event("commit", { at: 0, text: "ab" }));
  expect(receiver.digestClaim).toBeNull();
  receiver.receive(finish(2, digest));
  return receiver;
}

const DIGEST_OF_AB = "fb8e20fc2e4c3f248c60c39bd652f3c1347298bb977b8b4d5903b85055620603";

afterEach(() => vi.unstubAllGlobals());

describe("a reader", () => {
  test("tells what an event did to the visible text", () => {
    const receiver = opened();
    const nothing = { committed: "", erased: "", cause: null, appended: "" };
    expect(receiver.receive(event("tentative", { at: 0, text: "abc" }))).toEqual({
      ...nothing,
      appended: "abc",
    });
    expect(receiver.receive(event("commit", { at: 0, text: "a" }))).toEqual({
      ...nothing,
      committed: "a",
    });
    const retract = { at: 2, n: 1, cause: "draft_rejected" };
    expect(receiver.receive(event("commit", { at: 1, text: "bX", retract }))).toEqual({
      committed: "bX",
      erased: "c",
      cause: "draft_rejected",
      appended: "X",
    });
    receiver.receive(event("tentative", { at: 3, text: "de" }));
    expect(receiver.receive(event("retract", { at: 4, n: 1, cause: "cancelled" }))).toEqual({
      ...nothing,
      erased: "e",
      cause: "cancelled",
    });
    expect(receiver.receive(event("heartbeat"))).toBeNull();
    receiver.interrupted();
    expect(receiver.tail).toBe("d");
    expect(receiver.receive(open({ at: 3 }))).toEqual({ ...nothing, erased: "d" });
    expect(receiver.committed).toBe("abX");
  });

  test("tells that the tail is gone when it fails", () => {
    const receiver = opened();
    receiver.receive(event("tentative", { at: 0, text: "abc" }));
    expect(receiver.receive(event("tentative", { at: 1, text: "d" }))).toEqual({
      committed: "",
      erased: "abc",
      cause: "gap",
      appended: "",
    });
    expect(receiver.receive(event("heartbeat"))).toBeNull();
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
    const receiver = opened();
    receiver.receive(event("tentative", { at: 0, text: "a" }));
    expect(receiver.reject(new RemoteProtocolError("too long"))).toMatchObject({ erased: "a" });
    expect(receiver.failure).toMatchObject({
      code: "protocol_violation",
      message: "too long",
      retryable: false,
      ended: false,
    });
  });

  test("knows a part as complete only when the next one or the end came", () => {
    const receiver = opened();
    receiver.receive(event("commit", { at: 0, text: "ab" }));
    expect(receiver.parts.map((part) => part.complete)).toEqual([false]);
    receiver.receive(event("part", { part: 1, kind: "tool_call", name: "f" }));
    expect(receiver.parts.map((part) => part.complete)).toEqual([true, false]);
    expect(receiver.parts.at(-1)?.kind).toBe("tool_call");
    receiver.receive(finish(0, DIGEST_OF_AB));
    expect(receiver.parts.map((part) => part.complete)).toEqual([true, true]);
    expect(receiver.finish).toMatchObject({ reason: "stop" });
  });

  test("distrusts an answer of nothing more where it has had no finish", () => {
    const receiver = opened();
    receiver.receive(event("tentative", { at: 0, text: "a" }));
    receiver.interrupted();
    receiver.nothingMore();
    expect([receiver.state, receiver.tail, receiver.parts[0]?.complete]).toEqual(["failed", "", false]);
    expect(receiver.failure?.code).toBe("protocol_violation");
    expect(() => receiver.nothingMore()).toThrow(LocalProtocolError);
  });

  test("is finished when there is nothing more after a cursor that says finish", () => {
    const receiver = new Receiver({ cursor: "7.0.2.finish", held: "ab" });
    receiver.nothingMore();
    expect([receiver.state, receiver.committed]).toEqual(["finished", "ab"]);
  });

  test("does not resume a stream that has ended, though its request may be repeated", () => {
    const receiver = opened();
    receiver.receive(
      event("error", { code: "shutting_down", message: "", retryable: true, ended: true, at: 0 }),
    );
    receiver.interrupted();
    expect(receiver.state).toBe("failed");
    expect(receiver.failure).toMatchObject({ retryable: true, ended: true });
  });

  test("tells the verified tail from what is drafted, until the next attachment", () => {
    expect(new Receiver().verifiedTail).toBe("");
    const receiver = opened();
    receiver.receive(event("tentative", { at: 0, text: "One t", verified: 4 }));
    expect([receiver.tail, receiver.verifiedTail]).toEqual(["One t", "One "]);
    receiver.interrupted();
    receiver.receive(open());
    expect(receiver.verifiedTail).toBe("");
  });

  test("refuses to begin with a cursor that is none or text that does not end there", () => {
    expect(() => new Receiver({ cursor: "7.0" })).toThrow(RequestError);
    expect(() => new Receiver({ cursor: "7.0.1", held: "😀", unit: "utf-16" })).toThrow(
      LocalProtocolError,
    );
    const receiver = new Receiver({ cursor: "7.0.1", held: "😀" });
    expect([receiver.committed, receiver.cursor]).toEqual(["😀", "7.0.1"]);
  });
});

describe("the digest", () => {
  test("that matches leaves the stream finished", async () => {
    const receiver = finished(DIGEST_OF_AB);
    expect(receiver.digestClaim).toEqual({ text: "ab", digest: DIGEST_OF_AB });
    expect(await checkDigest(receiver)).toBe("match");
    expect(receiver.state).toBe("finished");
  });

  test("that does not match means the stream has failed", async () => {
    const receiver = finished("00");
    expect(await checkDigest(receiver)).toBe("mismatch");
    expect(receiver.state).toBe("failed");
    expect(receiver.failure).toMatchObject({ code: "protocol_violation", retryable: false });
    expect(receiver.finish).toBeNull();
    expect(receiver.parts[0]?.complete).toBe(false);
    expect(await checkDigest(receiver)).toBe("unknown");
    expect(() => receiver.refuteDigest()).toThrow(LocalProtocolError);
  });

  test("stays unknown where the platform cannot hash", async () => {
    const receiver = finished("00");
    vi.stubGlobal("crypto", {});
    expect(await checkDigest(receiver)).toBe("unknown");
    vi.stubGlobal("crypto", undefined);
    expect(await checkDigest(receiver)).toBe("unknown");
    expect(receiver.state).toBe("finished");
  });

  test("stays unknown to a reader that does not hold the beginning", async () => {
    const receiver = new Receiver({ cursor: "7.1.0" });
    receiver.receive(open({ part: 1 }));
    receiver.receive(finish(0, "00"));
    expect(receiver.state).toBe("finished");
    expect(await checkDigest(receiver)).toBe("unknown");
  });
});
