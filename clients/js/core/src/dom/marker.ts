/** Text that was taken back, struck out for a moment. */

import { CLASSES } from "./classes.js";

const SHOWN_MS = 600;

export class Marker {
  readonly #ms: number;

  /** 0, or a reader who asked for less motion: nothing is marked. */
  constructor(ms: number = SHOWN_MS) {
    this.#ms = matchMedia("(prefers-reduced-motion: reduce)").matches ? 0 : ms;
  }

  /** Shows `text` at the end of `parent`, to nobody who listens. */
  mark(text: string, parent: Element): void {
    if (this.#ms === 0) return;
    const mark = parent.ownerDocument.createElement("del");
    mark.className = CLASSES.retracted;
    mark.ariaHidden = "true";
    mark.textContent = text;
    parent.append(mark);
    setTimeout(() => mark.remove(), this.#ms);
  }
}
