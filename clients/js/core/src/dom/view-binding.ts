/** A stream's text in a page: committed text is written once, only the tail is patched. */

import type { Stream } from "../stream.js";
import type { View } from "../view.js";
import { CLASSES, commonPrefix } from "./classes.js";
import { eachFrame } from "./each-frame.js";
import { Marker } from "./marker.js";

export interface BindOptions {
  /** How long text that was taken back stays, struck out; 0: not at all. Default 600. */
  readonly retractedMs?: number;
}

/**
 * Shows the stream in `element`, which should be empty, and gives a function that stops doing so
 * (what is shown stays). At most one patch per frame: what comes and goes between two is never seen.
 *
 * Committed text is in nodes that are never touched again, under `aria-live`; a screen reader hears
 * of nothing that may be taken back.
 */
export function bindView(element: Element, stream: Stream, options: BindOptions = {}): () => void {
  const marker = new Marker(options.retractedMs);
  const parts: PartView[] = [];
  return eachFrame(stream, (view: View) => {
    for (const [index, part] of view.parts.entries()) {
      parts[index] ??= new PartView(element, part.kind, marker);
      parts[index].show(part.committed, part.verifiedTail, part.tail);
    }
  });
}

/** One part on the page. */
class PartView {
  readonly #committed: HTMLElement;
  readonly #tail: HTMLElement;
  readonly #verified: Text;
  readonly #tentative: Text;
  readonly #marker: Marker;
  #length = 0;
  /** The tail as it is painted. */
  #painted = "";

  constructor(parent: Element, kind: string, marker: Marker) {
    const page = parent.ownerDocument;
    const make = (into: Element, className: string): HTMLElement => {
      const made = page.createElement("span");
      made.className = className;
      into.append(made);
      return made;
    };
    const part = make(parent, CLASSES.part);
    part.dataset["kind"] = kind;
    this.#committed = make(part, CLASSES.committed);
    this.#committed.ariaLive = "polite";
    this.#tail = make(part, CLASSES.tail);
    this.#tail.ariaHidden = "true";
    this.#verified = page.createTextNode("");
    this.#tentative = page.createTextNode("");
    make(this.#tail, CLASSES.verified).append(this.#verified);
    make(this.#tail, CLASSES.tentative).append(this.#tentative);
    this.#marker = marker;
  }

  show(committed: string, verified: string, tail: string): void {
    const fresh = committed.slice(this.#length);
    const next = fresh + tail;
    if (next === this.#painted && fresh === "" && this.#verified.data === verified) return;
    const kept = commonPrefix(this.#painted, next);
    const gone = this.#painted.slice(kept);
    if (gone === "") this.#commit(fresh);
    else {
      // The struck-out text stands where it stood: what is committed behind it comes behind it.
      this.#commit(fresh.slice(0, kept));
      if (kept <= fresh.length) this.#marker.mark(gone, this.#committed);
      this.#commit(fresh.slice(kept));
      if (kept > fresh.length) this.#marker.mark(gone, this.#tail);
    }
    this.#length = committed.length;
    this.#painted = tail;
    write(this.#verified, verified);
    write(this.#tentative, tail.slice(verified.length));
  }

  #commit(text: string): void {
    if (text !== "") this.#committed.append(text);
  }
}

function write(node: Text, data: string): void {
  if (node.data === data) return;
  if (data.startsWith(node.data)) node.appendData(data.slice(node.length));
  else node.data = data;
}
