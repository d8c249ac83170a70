/** The token view: who wrote the word under the pointer, how sure it was, when it was checked. */

import type { Origin, Steps } from "../run/steps.js";
import { at, element, percent, seconds } from "./page.js";
import type { Pane } from "./pane.js";

/** Between the word and what is said of it. */
const DISTANCE_PX = 12;

export class TokenView {
  readonly #panes: readonly Pane[];
  readonly #tip = at("#tip");
  readonly #steps: () => Steps;
  readonly #drafter: () => string;
  #shown: Origin | null = null;

  constructor(panes: readonly Pane[], steps: () => Steps, drafter: () => string) {
    this.#panes = panes;
    this.#steps = steps;
    this.#drafter = drafter;
    for (const pane of panes) this.#listen(pane);
    window.addEventListener("scroll", () => this.hide(), { passive: true });
  }

  hide(): void {
    this.#shown = null;
    this.#tip.hidden = true;
    if ("highlights" in CSS) CSS.highlights.delete("token");
  }

  #listen(pane: Pane): void {
    const under = ({ clientX, clientY }: MouseEvent): void => {
      const offset = pane.offsetAt(clientX, clientY);
      const origin = offset === null ? undefined : this.#originAt(offset);
      if (origin === undefined || !isUnder(pane, origin, clientX, clientY)) this.hide();
      else this.#show(pane, origin);
    };
    pane.text.addEventListener("pointermove", under);
    pane.text.addEventListener("click", under);
    pane.text.addEventListener("pointerleave", () => this.hide());
    pane.text.addEventListener("scroll", () => this.hide(), { passive: true });
    pane.text.addEventListener("blur", () => this.hide());
    pane.text.addEventListener("keydown", (event) => {
      if (event.key === "Escape") this.hide();
      const way = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (way === undefined) return;
      event.preventDefault();
      const { origins } = this.#steps();
      const index = this.#shown === null ? -1 : origins.indexOf(this.#shown);
      const next = origins[Math.max(0, index + way)];
      if (next !== undefined) this.#show(pane, next);
    });
  }

  #originAt(offset: number): Origin | undefined {
    return this.#steps().origins.find(({ start, end }) => offset >= start && offset < end);
  }

  /** The same word is marked in every pane that has it. */
  #show(pane: Pane, origin: Origin): void {
    const range = wordIn(pane, origin);
    if (range === null) {
      this.hide();
      return;
    }
    if (origin !== this.#shown) {
      const ranges = this.#panes.map((each) => wordIn(each, origin));
      if ("highlights" in CSS) {
        CSS.highlights.set("token", new Highlight(...ranges.filter((each) => each !== null)));
      }
      const lines = this.#words(origin).map((line) => element("div", "", line));
      this.#tip.replaceChildren(element("strong", "", `“${range.toString().trim()}”`), ...lines);
      this.#tip.hidden = false;
      this.#shown = origin;
    }
    this.#place(range.getBoundingClientRect());
  }

  #words(origin: Origin): string[] {
    const { draft, verifiedAt, instead } = origin;
    if (draft === null) {
      const own = `Written by the model itself at ${seconds(verifiedAt)}.`;
      return instead === null ? [own] : [own, `The guess was “${instead.trim()}”.`];
    }
    const sure = draft.confidence === null ? "" : `, ${percent(draft.confidence)} sure`;
    const wait = Math.round(verifiedAt - draft.at);
    return [
      `Guessed by the drafter (${this.#drafter()}) at ${seconds(draft.at)}${sure}.`,
      `Checked ${wait} ms later: right.`,
    ];
  }

  #place(word: DOMRect): void {
    const { offsetWidth: width, offsetHeight: height } = this.#tip;
    const left = Math.max(8, Math.min(word.left, window.innerWidth - width - 8));
    const above = word.top - height - DISTANCE_PX;
    this.#tip.style.left = `${left}px`;
    this.#tip.style.top = `${above > 8 ? above : word.bottom + DISTANCE_PX}px`;
  }
}

/** Without the space before it, which may stand at the end of another line. */
function wordIn(pane: Pane, { start, end }: Origin): Range | null {
  const range = pane.rangeOf(start, end);
  const spaces = range?.toString().search(/\S/) ?? 0;
  return spaces > 0 ? pane.rangeOf(start + spaces, end) : range;
}

/** A caret is also found beside a line's end; a word is only where it stands. */
function isUnder(pane: Pane, origin: Origin, x: number, y: number): boolean {
  const boxes = pane.rangeOf(origin.start, origin.end)?.getClientRects() ?? [];
  return [...boxes].some(
    (box) => x >= box.left && x <= box.right && y >= box.top - 6 && y <= box.bottom + 6,
  );
}
