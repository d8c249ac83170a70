/** What a visitor may do to the run: slow the checking down, cut the connection, kill the engine. */

import { type Health, killEngine, type Pace, slowDown } from "../gateway.js";
import { at } from "./page.js";

/** While the slider moves, the engine is told this often. */
const TELL_EVERY_MS = 120;

export class Levers {
  readonly #field = at("#delay-field");
  readonly #slider = at<HTMLInputElement>("#delay");
  readonly #cut = at<HTMLButtonElement>("#cut");
  readonly #kill = at<HTMLButtonElement>("#kill");
  readonly #event = at("#event");
  #isDemonstration = false;
  #telling: ReturnType<typeof setTimeout> | null = null;

  constructor(onCut: () => void, onKilled: () => void) {
    this.#cut.addEventListener("click", onCut);
    this.#kill.addEventListener("click", () => {
      this.#kill.disabled = true;
      void killEngine().then((wasKilled) => {
        if (wasKilled) onKilled();
      });
    });
    this.#slider.addEventListener("input", () => {
      this.#sayDelay();
      if (this.#telling !== null) return;
      this.#telling = setTimeout(() => {
        this.#telling = null;
        void slowDown(Number(this.#slider.value));
      }, TELL_EVERY_MS);
    });
  }

  /** Null: no demonstration, or no engine. */
  get verifyDelay(): number | null {
    return this.#isDemonstration ? Number(this.#slider.value) : null;
  }

  offer(pace: Pace | null): void {
    this.#isDemonstration = pace !== null;
    this.#field.hidden = pace === null;
    this.#kill.hidden = pace === null;
    if (pace === null) return;
    this.#slider.max = String(pace.most);
    this.#slider.value = String(pace.verify_delay_ms);
    this.#sayDelay();
  }

  allow(isRunning: boolean, isCut: boolean, health: Health): void {
    this.#cut.disabled = !isRunning || isCut;
    this.#kill.disabled = health !== "ready";
  }

  /** What has just happened, in a sentence. */
  say(words: string): void {
    if (this.#event.textContent !== words) this.#event.textContent = words;
  }

  #sayDelay(): void {
    const delay = Number(this.#slider.value);
    const text = delay === 0 ? "as fast as it goes" : `+${delay} ms per check`;
    at("#delay-text").textContent = text;
    this.#slider.setAttribute("aria-valuetext", text);
  }
}
