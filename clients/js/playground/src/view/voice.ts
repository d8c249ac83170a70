/** Speaks committed sentences: what has been said cannot be unsaid. */

import { at } from "./page.js";

export class Voice {
  readonly #button = at<HTMLButtonElement>("#voice");
  #said = 0;

  constructor() {
    if (!("speechSynthesis" in window)) return;
    this.#button.hidden = false;
    this.#button.addEventListener("click", () => {
      const isOn = !this.isOn;
      this.#button.setAttribute("aria-pressed", String(isOn));
      if (!isOn) speechSynthesis.cancel();
    });
  }

  get isOn(): boolean {
    return this.#button.getAttribute("aria-pressed") === "true";
  }

  /** Another text is on show; what stands there already is not said. */
  reset(committed = ""): void {
    this.#said = committed.length;
    if (this.isOn) speechSynthesis.cancel();
  }

  /** The committed text is now so far. */
  hear(committed: string): void {
    const sentence = committed.slice(this.#said).trim();
    this.#said = committed.length;
    if (this.isOn && sentence !== "") speechSynthesis.speak(new SpeechSynthesisUtterance(sentence));
  }
}
