/**
 * Paints one reading: committed text is appended and never touched again, only the tail is replaced.
 * Each line of the text is a block of its own, so that a long answer is not laid out again at every word; a long
 * paragraph is several, parted where its rows are, for as long as text comes and the pane stays as wide as it is.
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
/** Of one block, in characters: more than a pane is high, so that its scroll bar, which makes it narrower, is there. */
const BLOCK = 1500;

interface Piece {
  readonly node: Text;
  /** Where it begins in the committed text. */
  readonly start: number;
}

export class Pane {
  readonly name: PaneName;
  readonly root: HTMLElement;
  readonly text: HTMLElement;
  readonly #note: HTMLElement;
  readonly #wet = element("span", "wet");
  readonly #caret = element("span", "caret");
  /** The line that is being written: what is committed of it, then tail and caret. */
  #line = element("div", "line");
  /** In characters, what is committed of it. */
  #lineLength = 0;
  /** Committed text as it stands in the page, in order. */
  #pieces: Piece[] = [];
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
    let { clientWidth: width } = this.text;
    new ResizeObserver(() => {
      // The rows are others now.
      if (this.text.clientWidth !== width) this.#join();
      width = this.text.clientWidth;
    }).observe(this.text);
    this.reset();
  }

  reset(): void {
    this.text.replaceChildren();
    this.text.classList.remove("joined");
    this.#pieces = [];
    this.#beginLine(false);
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
      if (this.#lineLength > BLOCK) this.#partLine();
      if (gone !== "" && isInTail) this.#strike(gone, this.#caret);
      if (isAtEnd) this.text.scrollTop = this.text.scrollHeight;
    }
    this.#caret.hidden = !isLive;
    if (!isLive) this.#join();
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
    const [first, last] = [this.#pieceAt(start), this.#pieceAt(end - 1)];
    if (first === undefined || last === undefined) return null;
    range.setStart(first.node, start - first.start);
    range.setEnd(last.node, end - last.start);
    return range;
  }

  /** By bisection: there are thousands of them in a long answer. */
  #pieceAt(offset: number): Piece | undefined {
    let [low, high] = [0, this.#pieces.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if ((this.#pieces[middle]?.start ?? 0) <= offset) low = middle + 1;
      else high = middle;
    }
    return this.#pieces[low - 1];
  }

  #beginLine(isCode: boolean): void {
    this.#line = element("div", isCode ? "line listing" : "line");
    this.#lineLength = 0;
    this.#line.append(this.#wet, this.#caret);
    this.text.append(this.#line);
  }

  #append(text: string, className: string): void {
    for (const run of this.#fences.split(text)) {
      for (const line of run.text.split(/(?<=\n)/)) {
        const piece = element("span", run.isCode ? `${className} code` : className);
        const node = document.createTextNode(line);
        piece.append(node);
        this.#starts.set(node, this.#length);
        this.#pieces.push({ node, start: this.#length });
        this.#length += line.length;
        this.#lineLength += line.length;
        this.#line.insertBefore(piece, this.#wet);
        if (line.endsWith("\n")) this.#beginLine(run.isCode);
      }
    }
  }

  /** Goes on in a block of its own from the beginning of the last row, if that is in what came last. */
  #partLine(): void {
    const [last, previous] = [this.#pieces.at(-1), this.#pieces.at(-2)];
    if (last === undefined || this.text.classList.contains("joined")) return;
    let [{ node }, piece] = [last, last.node.parentElement as HTMLElement];
    const offset = rowStart(node);
    if (offset === 0) {
      if (previous === undefined || !this.#line.contains(previous.node)) return;
      // It may have begun before.
      if (top(previous.node, previous.node.length - 1) === top(node, 0)) return;
    }
    if (offset > 0) {
      node = node.splitText(offset);
      piece = element("span", piece.className);
      piece.append(node);
      this.#starts.set(node, last.start + offset);
      this.#pieces.push({ node, start: last.start + offset });
    }
    const before = this.#line;
    this.#beginLine(before.classList.contains("listing"));
    this.#lineLength = node.length;
    this.#line.prepend(piece);
    for (const each of [before, this.#line]) each.classList.add("part");
  }

  /** The parts of a paragraph flow as one again. */
  #join(): void {
    this.text.classList.add("joined");
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
    this.#line.insertBefore(ghost, before);
    const over = ghost.offsetLeft + words.offsetWidth - (this.text.clientWidth - 8);
    if (over > 0) words.style.left = `${-Math.min(over, ghost.offsetLeft - 8)}px`;
  }
}

/** Where the last row begins that `node` stands in; 0: before it, or with it. */
function rowStart(node: Text): number {
  let start = node.length - 1;
  const row = top(node, start);
  while (start > 0 && top(node, start - 1) === row) start -= 1;
  return start;
}

/** Of one character, in the window. */
function top(node: Text, offset: number): number {
  const range = document.createRange();
  range.setStart(node, offset);
  range.setEnd(node, offset + 1);
  return range.getBoundingClientRect().top;
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
