/** A run as a recording: what it shows at any moment. */

import { readFileSync } from "node:fs";
import * as fc from "fast-check";
import { expect, test } from "vitest";

import { Player } from "../src/run/player.js";
import { lead, Reader } from "../src/run/reader.js";
import { decodeRecording, encodeRecording, PANES, questionOf } from "../src/run/recording.js";
import { Steps } from "../src/run/steps.js";
import { linkOf, questionIn } from "../src/share/link.js";
import { snippet } from "../src/share/snippets.js";
import { DRAFTED, event, OPEN, RECORDING } from "./questions.js";

const TEXT = "The red fox jumps.";
const EXAMPLE = new URL("../example.json", import.meta.url);

test("steps say of each token who wrote it, how sure, and what was guessed instead", () => {
  const steps = new Steps();
  for (const [t, each] of DRAFTED) steps.apply(t, each);
  expect(steps.list.map(({ accepted, rejected, own }) => [accepted, rejected, own])).toEqual([
    [1, 1, 1],
    [2, 0, 1],
  ]);
  expect(steps.acceptance).toBe(0.75);
  expect(steps.origins.map(({ start, end }) => TEXT.slice(start, end))).toEqual([
    "The", " red", " fox", " jumps", ".",
  ]);
  expect(steps.origins.map(({ draft }) => draft?.confidence ?? null)).toEqual([0.9, null, 0.8, 0.7, null]);
  expect(steps.origins.map(({ instead }) => instead)).toEqual([null, " brown", null, null, null]);
  expect(steps.origins[0]?.verifiedAt).toBe(400);
});

test("steps count a draft that an engine's end took back as lost", () => {
  const steps = new Steps();
  steps.apply(0, OPEN);
  steps.apply(1, event({ type: "tentative", at: 0, text: "ab", tokens: [{ id: 1, n: 1 }, { id: 2, n: 1 }] }));
  steps.apply(2, event({ type: "retract", at: 0, n: 2, cause: "engine_restart" }));
  steps.apply(3, event({ type: "commit", at: 0, text: "ab", tokens: [{ id: 1, n: 1 }, { id: 2, n: 1 }] }));
  expect(steps.list.map(({ rejected, own, cause }) => [rejected, own, cause])).toEqual([
    [2, 0, "engine_restart"],
    [0, 2, null],
  ]);
});

test("reader remembers of what stays when it came for good", () => {
  const [eager, patient] = [new Reader(), new Reader()];
  for (const { t, reading, event: each } of RECORDING.entries) {
    if (reading === "retract") eager.apply(t, each);
    if (reading === "hold") patient.apply(t, each);
  }
  expect(eager.erased).toBe(5);
  expect(eager.shownAt.slice(0, 7)).toEqual([100, 100, 100, 100, 400, 400, 400]);
  // "The " 300 ms early, " fox jumps" 290 ms, of 18 characters.
  expect(lead(eager, patient)).toBeCloseTo((4 * 300 + 10 * 290) / 18);
});

test("a moment looks the same however a player came there", () => {
  fc.assert(
    fc.property(fc.array(fc.integer({ min: 0, max: 800 }), { maxLength: 12 }), fc.integer({ min: 0, max: 800 }), (way, t) => {
      const [wandering, straight] = [new Player(RECORDING), new Player(RECORDING)];
      for (const each of [...way, t]) wandering.seek(each);
      straight.seek(t);
      for (const pane of PANES) {
        const [one, other] = [wandering.stage.readers[pane], straight.stage.readers[pane]];
        expect([one.committed, one.tail, one.erased]).toEqual([other.committed, other.tail, other.erased]);
      }
      expect(wandering.stage.steps.list).toEqual(straight.stage.steps.list);
    }),
  );
});

test("player plays at its speed and stops at the end", () => {
  const player = new Player(RECORDING);
  player.speed = 2;
  player.play();
  player.advance(200);
  expect([player.now, player.stage.readers.hold.committed]).toEqual([400, "The red"]);
  player.advance(10_000);
  expect([player.isPlaying, player.now, player.stage.isFinished]).toEqual([false, 710, true]);
  player.play();
  expect([player.now, player.stage.readers.hold.committed]).toEqual([0, ""]);
});

test("recording comes back from its file as it was", () => {
  const entries = RECORDING.entries.map((entry) => ({ ...entry, event: { ...entry.event, stream: null } }));
  expect(decodeRecording(encodeRecording(RECORDING))).toEqual({ ...RECORDING, entries });
});

test.each([
  ["no JSON", "{", "not JSON"],
  ["another file", '{"entries":[]}', "not a recording"],
  ["a list", "[]", "not a recording"],
  ["a row of another reading", '{"format":"wetink-recording-1","entries":[[1,"x",{"type":"heartbeat"}]]}', "damaged"],
  ["a row without time", '{"format":"wetink-recording-1","entries":[["1","hold",{"type":"heartbeat"}]]}', "damaged"],
])("a file that is %s is refused", (_, text, message) => {
  expect(() => decodeRecording(text)).toThrow(message);
});

test("the example that is shipped plays to its end, the same text in all panes", () => {
  const player = new Player(decodeRecording(readFileSync(EXAMPLE, "utf8")));
  player.seek(player.duration);
  expect(player.stage.isFinished).toBe(true);
  const texts = PANES.map((pane) => player.stage.readers[pane].committed);
  expect(new Set(texts).size).toBe(1);
  expect(player.stage.readers.retract.retractions).toBeGreaterThan(5);
});

test("a link gives the question back, whatever is in it", () => {
  fc.assert(
    fc.property(
      fc.record({
        prompt: fc.string({ minLength: 1, unit: "grapheme" }),
        seed: fc.nat(),
        temperature: fc.constantFrom(0, 0.7, 2),
        budget: fc.constantFrom(0.05, 1),
        max_tokens: fc.integer({ min: 1, max: 1024 }),
      }),
      (question) => {
        const link = new URL(linkOf(question, "http://127.0.0.1:8000/#old"));
        expect(questionIn(link.hash)).toEqual(question);
        expect(link.hash).not.toContain("old");
      },
    ),
  );
});

test("numbers in a link are put in bounds, and what is no number is left out", () => {
  const question = questionOf({ prompt: "p", max_tokens: "1e9", temperature: "-1", seed: "x", budget: "0" });
  expect(question).toEqual({ prompt: "p", max_tokens: 1024, temperature: 0, budget: 0.01 });
});

test("code in a shell keeps quotes in the prompt", () => {
  const code = snippet("curl", { ...RECORDING.question, prompt: "it's" }, "http://127.0.0.1:8000");
  expect(code).toContain(String.raw`it'\''s`);
});

test("code in Python has Python's literals", () => {
  const code = snippet("python", RECORDING.question, "http://127.0.0.1:8000");
  expect(code).toContain('"messages": [{');
  expect(code).not.toMatch(/true|false|null/);
});
