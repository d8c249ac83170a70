import { describe, expect, test } from "vitest";

import { decodeEvent, RemoteProtocolError } from "../../src/protocol/index.js";

const open = {
  type: "open",
  v: 1,
  epoch: 7,
  model: "m",
  policy: { kind: "hold" },
  offsets: "utf-16",
  part: 0,
  at: 0,
};

describe("decodeEvent", () => {
  test("fills in what an event leaves out", () => {
    expect(decodeEvent(JSON.stringify({ ...open, surprise: { at: 1 } }))).toEqual({
      ...open,
      kind: "text",
      stream: null,
      name: null,
      seed: null,
      ref: null,
      degraded: null,
      draft_model: null,
      t: null,
    });
    expect(decodeEvent('{"type":"commit","at":0,"text":"a"}')).toEqual({
      type: "commit",
      at: 0,
      text: "a",
      retract: null,
      cut_short: false,
      tokens: null,
      stream: null,
      t: null,
    });
  });

  test("reads everything an event may hold", () => {
    const commit = {
      type: "commit",
      stream: "s",
      t: 1.5,
      at: 3,
      text: "ab",
      retract: { at: 4, n: 2, cause: "new" },
      cut_short: true,
      tokens: [{ id: 5, n: 2, logprob: -0.5, confidence: 0.75 }],
    };
    expect(decodeEvent(JSON.stringify(commit))).toEqual(commit);
    const finish = {
      type: "finish",
      stream: null,
      t: null,
      at: 3,
      reason: "stop",
      usage: {
        prompt_tokens: 1,
        cached_prompt_tokens: 2,
        completion_tokens: 3,
        drafted_tokens: 4,
        accepted_tokens: 5,
        rejected_tokens: 6,
      },
      digest: "00",
      stats: {
        ttfv_ms: 1.5,
        ttc_ms: null,
        erased_units: 2,
        normalized_erasure: 0.25,
        retractions: 1,
        longest_tail: 3,
        acceptance_rate: 0.5,
        tokens_per_step: 1.5,
      },
    };
    expect(decodeEvent(JSON.stringify(finish))).toEqual(finish);
    const error = {
      type: "error",
      stream: null,
      t: null,
      code: "overloaded",
      message: "later",
      retryable: true,
      ended: true,
      at: 0,
      param: "policy.unit",
      ref: "a",
      retry_after_s: 2.5,
    };
    expect(decodeEvent(JSON.stringify(error))).toEqual(error);
    const given = { ...open, degraded: ["shorter_drafts", "later"], draft_model: "small" };
    expect(decodeEvent(JSON.stringify(given))).toMatchObject(given);
  });

  test.each([
    [42, 42],
    [Number.MAX_SAFE_INTEGER, Number.MAX_SAFE_INTEGER],
    ["9223372036854775807", null],
  ])("gives a seed only if a number holds it exactly: %s", (seed, expected) => {
    const json = `${JSON.stringify(open).slice(0, -1)},"seed":${seed}}`;
    expect(decodeEvent(json)).toMatchObject({ seed: expected });
  });

  test.each([
    ['{"type":"tentative","at":0.5,"text":""}', "half an offset"],
    ['{"type":"tentative","at":9007199254740992,"text":""}', "an offset a number would round"],
    ['{"type":"tentative","at":true,"text":""}', "a boolean offset"],
    ['{"type":"tentative","at":0,"text":"","confidence":"high"}', "words for a number"],
    ['{"type":"tentative","at":0,"text":"","confidence":1e999}', "an infinite number"],
    ['{"type":"tentative","at":0,"text":"","tokens":{}}', "an object for a list"],
    ['{"type":"tentative","at":0,"text":"","tokens":[{"id":1}]}', "a token without a length"],
    ['{"type":"part","part":1,"kind":null}', "null for what must be there"],
    ['{"type":"commit","at":0,"text":"a","retract":[]}', "a list for an object"],
    [JSON.stringify({ ...open, degraded: "shorter_drafts" }), "a string for a list"],
    [JSON.stringify({ ...open, degraded: [1] }), "a list of something else"],
    ['{"type":"error","code":"x","message":"y","retryable":true,"at":0,"retry_after_s":"3"}', "words for seconds"],
    ['{"type":"error","code":"x","message":"y","retryable":0,"at":0}', "a number for a boolean"],
    ['{"type":"tentative","at":0,"text":"\\ud83d"}', "half a surrogate pair as an escape"],
    ['{"type":"tentative","at":0,"text":"\ud83d"}', "half a surrogate pair"],
    ['{"type":"heartbeat","x":["\\uDE00"]}', "half a surrogate pair in an unknown field"],
    ['{"type":"heartbeat","\\ud83d":1}', "half a surrogate pair in a name"],
    ['{"type":1}', "a type that is no name"],
    ["null", "no object"],
    ["", "nothing"],
  ])("refuses %s (%s)", (json) => {
    expect(() => decodeEvent(json)).toThrow(RemoteProtocolError);
  });

  test("accepts a surrogate pair written as escapes", () => {
    expect(decodeEvent('{"type":"tentative","at":0,"text":"\\ud83d\\ude00"}')).toMatchObject({
      text: "😀",
    });
  });

  test.each(['{"type":"later"}', '{"type":"constructor","at":"x"}', '{"type":"__proto__"}'])(
    "knows no type %s",
    (json) => {
      expect(decodeEvent(json)).toBeNull();
    },
  );
});
