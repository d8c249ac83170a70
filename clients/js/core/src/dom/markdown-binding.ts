/** A stream's text as Markdown: complete blocks are rendered once, the open ones per frame. */

import type { Stream } from "../stream.js";
import { CLASSES, commonPrefix } from "./classes.js";
import { eachFrame } from "./each-frame.js";

/** A Markdown parser, the caller's choice. */
export interface Markdown {
  /** The blocks of a text, in order, blank lines included: joined, they are the text. */
  readonly blocks: (text: string) => readonly string[];
  /** One block as nodes. What a model says is not to be trusted: they are put into the page as they are. */
  readonly render: (block: string) => Node;
}

/**
 * So many blocks at the end of the last whole line may still become others: the one that is being
 * written, and the one before, which that may turn out to continue.
 */
const OPEN_BLOCKS = 2;

/**
 * Shows the stream in `element`, which should be empty, and gives a function that stops doing so.
 *
 * A block is rendered on its own, once it is complete and committed: what a later one defines (the
 * target of a link) it does not see. A retraction touches the open blocks alone.
 */
export function bindMarkdown(element: Element, stream: Stream, markdown: Markdown): () => void {
  const parts: MarkdownPart[] = [];
  return eachFrame(stream, ({ parts: shown, state }) => {
    for (const [index, { kind, committed, tail, complete }] of shown.entries()) {
      parts[index] ??= new MarkdownPart(element, kind, markdown);
      parts[index].show(committed, tail, complete || state === "failed");
    }
  });
}

class MarkdownPart {
  readonly #done: Element;
  readonly #open: Element;
  readonly #markdown: Markdown;
  /** Committed text that is rendered for good. */
  #length = 0;
  #painted = "";

  constructor(parent: Element, kind: string, markdown: Markdown) {
    const make = (into: Element, className: string): HTMLElement => {
      const made = parent.ownerDocument.createElement("div");
      made.className = className;
      into.append(made);
      return made;
    };
    const part = make(parent, CLASSES.part);
    part.dataset["kind"] = kind;
    this.#done = make(part, CLASSES.committed);
    this.#done.ariaLive = "polite";
    this.#open = make(part, CLASSES.open);
    this.#open.ariaHidden = "true";
    this.#markdown = markdown;
  }

  show(committed: string, tail: string, isComplete: boolean): void {
    const text = committed.slice(this.#length);
    const complete = isComplete
      ? this.#blocks(text)
      : completeBlocks(this.#blocks(text.slice(0, text.lastIndexOf("\n") + 1)));
    for (const block of complete) this.#done.append(this.#markdown.render(block));
    const done = complete.join("").length;
    this.#length += done;
    const rest = text.slice(done);
    if (done === 0 && rest + tail === this.#painted && tail === "") return;
    this.#painted = rest + tail;
    this.#open.replaceChildren(...this.#rendered(rest + tail));
    if (tail !== "") markFrom(this.#open, this.#visible(rest, this.#open.textContent ?? ""));
  }

  #rendered(text: string): Node[] {
    return this.#blocks(text).map((block) => this.#markdown.render(block));
  }

  /** How much of `shown` is there because of the committed `text` alone. */
  #visible(text: string, shown: string): number {
    const alone = this.#open.ownerDocument.createElement("div");
    alone.append(...this.#rendered(text));
    return commonPrefix(alone.textContent ?? "", shown);
  }

  /** A parser that leaves something out cannot say where a block ends. */
  #blocks(text: string): readonly string[] {
    const blocks = this.#markdown.blocks(text);
    return blocks.join("") === text ? blocks : [text];
  }
}

/** Those that nothing behind them can change any more. */
export function completeBlocks(blocks: readonly string[]): readonly string[] {
  let open = 0;
  let end = blocks.length;
  while (end > 0 && open < OPEN_BLOCKS) {
    end -= 1;
    if (blocks[end]?.trim() !== "") open += 1;
  }
  return open < OPEN_BLOCKS ? [] : blocks.slice(0, end);
}

/** Marks the text of `element` from `start` on as tentative. */
function markFrom(element: Element, start: number): void {
  const page = element.ownerDocument;
  const texts = page.createTreeWalker(element, NodeFilter.SHOW_TEXT);
  const marked: Text[] = [];
  let at = 0;
  for (let node = texts.nextNode() as Text | null; node !== null; node = texts.nextNode() as Text | null) {
    const end = at + node.length;
    if (end > start && node.data.trim() !== "") marked.push(at < start ? node.splitText(start - at) : node);
    if (at < start && end > start) texts.nextNode();
    at = end;
  }
  for (const text of marked) {
    const span = page.createElement("span");
    span.className = CLASSES.tentative;
    text.replaceWith(span);
    span.append(text);
  }
}
