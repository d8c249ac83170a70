/**
 * Paints one reading: committed text is appended and never touched again, only the tail is replaced.
 *
 * What was on show and is taken back stands above its place for a moment, struck through, as a
 * corrector would: the line itself never moves. What came and went between two frames is not shown.
 */

import type { PaneName } from "../run/recording.js";
import type { Reader } from "../run/reader.js";
import { at, element } from "./page.js";
import { Fences } from "./fences.js";

/** How committed text arrives that was not on show before. */
const ARRIVES = { hold: "comes", retract: "comes", chunk: "lit" } as const;
/** A reader this close to the end wants to see what comes. */
const NEAR_END_PX = 48;

export class Pane {
  readonly name: PaneName;
  readonly root: HTMLElement;
  readonly text: HTMLElement;
  readonly #note: HTMLElement;
  readonly #wet = element("span", "wet");
  readonly #caret = element("span", "caret");
  /** Where the text of each piece begins. */
  readonly #starts = new WeakMap<Node, number>();
  #fences = new Fences();
  #length = 0;
  #tail = "";
  /** One at a time: two would stand in each other's way. */
  #ghost: HTMLElement | null = null;

  constructor(name: PaneName) {
    this.name = name;
    this.root = at(`#pane-${name}`);
    this.text = at(".text", this.root);
    this.#note = at(".note", this.root);
    this.#wet.setAttribute("aria-hidden", "true");
    this.#caret.setAttribute("aria-hidden", "true");
    const shade = (): void => void this.root.classList.toggle("scrolled", this.text.scrollTop > 0);
    this.text.addEventListener("scroll", shade, { passive: true });
    this.reset();
  }

  reset(): void {
    this.text.replaceChildren(this.#wet, this.#caret);
    this.#wet.textContent = "";
    this.#wet.classList.remove("code");
    this.#fences = new Fences();
    this.#length = 0;
    this.#tail = "";
    this.root.dataset["state"] = "";
    this.note("");
  }

  /** A word about this reading, over its text; "" takes it away. */
  note(words: string): void {
    this.#note.textContent = words;
    this.#note.hidden = words === "";
  }

  get isOverflowing(): boolean {
    return this.text.scrollHeight > this.text.clientHeight;
  }

  /** `isLive`: more is to come. */
  paint(reader: Reader, isLive: boolean): void {
    const { committed, tail } = reader;
    const isAtEnd = this.text.scrollHeight - this.text.scrollTop - this.text.clientHeight < NEAR_END_PX;
    const fresh = committed.slice(this.#length);
    if (fresh !== "" || tail !== this.#tail) {
      const kept = commonLength(this.#tail, fresh + tail);
      const gone = kept === this.#tail.length ? "" : this.#tail.slice(wordStart(this.#tail, kept));
      this.#append(fresh.slice(0, kept), "dries");
      const isInTail = kept > fresh.length;
      if (gone !== "" && !isInTail) this.#strike(gone, this.#wet);
      this.#append(fresh.slice(kept), ARRIVES[this.name]);
      this.#wet.textContent = tail;
      this.#wet.classList.toggle("code", this.#fences.isInside);
      this.#tail = tail;
      if (gone !== "" && isInTail) this.#strike(gone, this.#caret);
      if (isAtEnd) this.text.scrollTop = this.text.scrollHeight;
    }
    this.#caret.hidden = !isLive;
  }

  /** The character under a point of the window; null beside the text. */
  offsetAt(x: number, y: number): number | null {
    const found = caretAt(x, y);
    if (found === null || !this.text.contains(found.node)) return null;
    const start = this.#starts.get(found.node);
    if (start !== undefined) return start + found.offset;
    return found.node === this.#wet.firstChild ? this.#length + found.offset : null;
  }

  /** What stands from `start` to `end`, as far as it is committed here; null where it is not. */
  rangeOf(start: number, end: number): Range | null {
    if (end > this.#length || end <= start) return null;
    const range = document.createRange();
    let isOpen = false;
    for (const { firstChild: node } of this.text.children) {
      const from = node === null ? undefined : this.#starts.get(node);
      if (node === null || from === undefined) continue;
      const length = node.textContent?.length ?? 0;
      if (!isOpen && start < from + length) {
        range.setStart(node, start - from);
        isOpen = true;
      }
      if (isOpen && end <= from + length) {
        range.setEnd(node, end - from);
        return range;
      }
    }
    return null;
  }

  #append(text: string, className: string): void {
    for (const run of this.#fences.split(text)) {
      const piece = element("span", run.isCode ? `${className} code` : className, run.text);
      if (piece.firstChild !== null) this.#starts.set(piece.firstChild, this.#length);
      this.#length += run.text.length;
      this.text.insertBefore(piece, this.#wet);
    }
  }

  #strike(gone: string, before: Node): void {
    const words = element("span", "", gone.trim());
    if (words.textContent === "") return;
    const ghost = element("span", "ghost");
    ghost.setAttribute("aria-hidden", "true");
    ghost.append(words);
    words.addEventListener("animationend", () => ghost.remove());
    this.#ghost?.remove();
    this.#ghost = ghost;
    this.text.insertBefore(ghost, before);
    const over = ghost.offsetLeft + words.offsetWidth - (this.text.clientWidth - 8);
    if (over > 0) words.style.left = `${-Math.min(over, ghost.offsetLeft - 8)}px`;
  }
}

/** Where the word begins that `offset` is inside of: half a word struck out could not be read. */
function wordStart(text: string, offset: number): number {
  return /\S*$/.exec(text.slice(0, offset))?.index ?? offset;
}

function commonLength(one: string, other: string): number {
  const most = Math.min(one.length, other.length);
  let length = 0;
  while (length < most && one[length] === other[length]) length += 1;
  return length;
}

/** `caretPositionFromPoint` is the standard; WebKit has only the older one. */
function caretAt(x: number, y: number): { node: Node; offset: number } | null {
  if ("caretPositionFromPoint" in document) {
    const position = document.caretPositionFromPoint(x, y);
    return position === null ? null : { node: position.offsetNode, offset: position.offset };
  }
  const range = (document as { caretRangeFromPoint?: (x: number, y: number) => Range | null })
    .caretRangeFromPoint?.(x, y);
  return range ? { node: range.startContainer, offset: range.startOffset } : null;
}
