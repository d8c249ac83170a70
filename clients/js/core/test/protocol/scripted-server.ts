/** A server that says what a script tells it to, for one reader of one stream. */

import { createHash } from "node:crypto";

import { formatCursor, indexAt, lengthIn, type OffsetUnit, parseCursor } from "../../src/protocol/index.js";

export type Action =
  /** Draft `text` behind the tail. */
  | { readonly do: "draft"; readonly text: string }
  /** Draft the next `n` code points of the truth behind the tail. */
  | { readonly do: "foresee"; readonly n: number }
  /** Verify the next `n` code points. */
  | { readonly do: "verify"; readonly n: number }
  /** Verify `n` more, and withhold the commit; the next tentative event says so. */
  | { readonly do: "withhold"; readonly n: number }
  /** Take back all but `n` code points of the tail. */
  | { readonly do: "retract"; readonly n: number }
  | { readonly do: "heartbeat" };

const EPOCH = 7;

export class ScriptedServer {
  readonly #unit: OffsetUnit;
  /** What will have been committed in the end, part by part, in code points. */
  readonly #truth: readonly (readonly string[])[];
  // What has been verified: all parts before `#part`, and so many code points of that one.
  #part = 0;
  #verified = 0;
  /** Code points of that part that are verified or withheld. */
  #withheld = 0;
  /** Code points of tail this attachment was told. */
  #tail: string[] = [];

  constructor(truth: readonly string[], unit: OffsetUnit) {
    this.#unit = unit;
    this.#truth = truth.map((text) => Array.from(text));
  }

  /** Frames of a new attachment: what was missed since `cursor`. */
  attach(cursor: string | null): string {
    this.#tail = [];
    const { part, offset } = cursor === null ? { part: 0, offset: 0 } : parseCursor(cursor);
    const text = this.#text(part);
    const held = Array.from(text.slice(0, indexAt(text, offset, this.#unit) ?? Number.NaN)).length;
    const [end, verified, withheld] = [this.#part, this.#verified, this.#withheld];
    const open = {
      type: "open",
      v: 1,
      stream: "s",
      epoch: EPOCH,
      model: "m",
      policy: { kind: "retract" },
      offsets: this.#unit,
      part,
      at: offset,
    };
    [this.#part, this.#verified] = [part, held];
    let frames = this.#frame(open, true);
    while (this.#part < end) {
      frames += this.#commit(this.#current().length - this.#verified) + this.#beginPart();
    }
    frames += this.#commit(verified - this.#verified);
    this.#withheld = withheld;
    return frames;
  }

  act(action: Action): string {
    switch (action.do) {
      case "draft":
        return this.#draft(Array.from(action.text));
      case "foresee": {
        const from = this.#verified + this.#tail.length;
        return this.#draft(this.#current().slice(from, from + action.n));
      }
      case "verify": {
        const left = this.#current().length - this.#verified;
        if (left === 0 && this.#part + 1 < this.#truth.length) {
          return this.#retract(0) + this.#beginPart();
        }
        return this.#commit(Math.min(action.n, left));
      }
      case "withhold":
        return this.#withhold(action.n);
      case "retract":
        return this.#retract(Math.max(action.n, this.#withheld - this.#verified));
      case "heartbeat":
        return this.#frame({ type: "heartbeat" }, false);
    }
  }

  /** Everything that is left, and the end. */
  finish(): string {
    let frames = "";
    while (this.#part + 1 < this.#truth.length) {
      frames += this.#commit(this.#current().length - this.#verified);
      frames += this.#retract(0) + this.#beginPart();
    }
    frames += this.#commit(this.#current().length - this.#verified) + this.#retract(0);
    const text = this.#truth.flat().join("");
    const finish = {
      type: "finish",
      at: this.#watermark(),
      reason: "stop",
      usage: { completion_tokens: 3 },
      digest: createHash("sha256").update(text).digest("hex"),
      stats: {},
    };
    return frames + this.#frame(finish, true);
  }

  #current(): readonly string[] {
    return this.#truth[this.#part] ?? [];
  }

  #text(part: number): string {
    return this.#truth[part]?.join("") ?? "";
  }

  #length(chars: readonly string[]): number {
    return lengthIn(chars.join(""), this.#unit);
  }

  #watermark(): number {
    return this.#length(this.#current().slice(0, this.#verified));
  }

  /** What is withheld and not shown yet comes first. */
  #draft(drafted: readonly string[]): string {
    const shown = this.#verified + this.#tail.length;
    const chars = [...this.#current().slice(shown, this.#withheld), ...drafted];
    if (chars.length === 0) return "";
    const watermark = this.#watermark();
    const at = watermark + this.#length(this.#tail);
    this.#tail.push(...chars);
    const sure = this.#current().slice(this.#verified, this.#withheld);
    const verified = sure.length > 0 ? { verified: watermark + this.#length(sure) } : {};
    return this.#frame({ type: "tentative", at, text: chars.join(""), ...verified }, false);
  }

  /** Drafts that turn out wrong by it are gone. */
  #withhold(n: number): string {
    this.#withheld = Math.min(this.#withheld + n, this.#current().length);
    const sure = this.#current().slice(this.#verified, this.#withheld);
    const wrong = sure.findIndex((char, index) => index < this.#tail.length && this.#tail[index] !== char);
    return wrong === -1 ? "" : this.#retract(wrong);
  }

  #retract(kept: number): string {
    const gone = this.#tail.splice(kept);
    if (gone.length === 0) return "";
    const at = this.#watermark() + this.#length(this.#tail);
    return this.#frame({ type: "retract", at, n: this.#length(gone), cause: "test" }, false);
  }

  #commit(n: number): string {
    if (n === 0) return "";
    const chars = this.#current().slice(this.#verified, this.#verified + n);
    const at = this.#watermark();
    let agreed = 0;
    while (agreed < n && agreed < this.#tail.length && chars[agreed] === this.#tail[agreed]) {
      agreed += 1;
    }
    const gone = agreed < n ? this.#tail.splice(agreed) : [];
    const retract = {
      at: at + this.#length(this.#tail),
      n: this.#length(gone),
      cause: "draft_rejected",
    };
    this.#tail.splice(0, n);
    this.#verified += n;
    this.#withheld = Math.max(this.#withheld, this.#verified);
    const text = chars.join("");
    const commit = { type: "commit", at, text, ...(gone.length > 0 && { retract }) };
    return this.#frame(commit, true);
  }

  #beginPart(): string {
    this.#part += 1;
    this.#verified = this.#withheld = 0;
    return this.#frame({ type: "part", part: this.#part, kind: "text" }, true);
  }

  #frame(event: { type: string; [field: string]: unknown }, watermark: boolean): string {
    const mark = event.type === "finish" ? "finish" : null;
    const cursor = { epoch: EPOCH, part: this.#part, offset: this.#watermark(), mark } as const;
    const id = watermark ? `id: ${formatCursor(cursor)}\n` : "";
    return `${id}data: ${JSON.stringify(event)}\n\n`;
  }
}
