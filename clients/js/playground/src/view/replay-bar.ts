/** Plays a run again: at any speed, from any moment. */

import type { Player } from "../run/player.js";
import { at, seconds } from "./page.js";

const SPEEDS = [0.1, 0.25, 0.5, 1, 2, 4] as const;
const PLAY = "M7 4.5v15l12-7.5z";
const PAUSE = "M7 5h3.5v14H7zM13.5 5H17v14h-3.5z";

export class ReplayBar {
  readonly #bar = at("#replay");
  readonly #play = at<HTMLButtonElement>("#play");
  readonly #scrub = at<HTMLInputElement>("#scrub");
  readonly #speed = at<HTMLSelectElement>("#speed");
  readonly #onMove: () => void;
  readonly #onPlay: () => void;
  #player: Player | null = null;

  /** `onMove`: another moment is to be shown, without the movements on the way there. */
  constructor(onMove: () => void, onPlay: () => void) {
    this.#onMove = onMove;
    this.#onPlay = onPlay;
    this.#speed.append(...SPEEDS.map((speed) => new Option(`${speed}×`, String(speed))));
    this.#speed.value = "1";
    this.#speed.addEventListener("change", () => {
      if (this.#player !== null) this.#player.speed = Number(this.#speed.value);
    });
    this.#scrub.addEventListener("input", () => {
      if (this.#player === null) return;
      this.#player.pause();
      this.#player.seek((Number(this.#scrub.value) / 1000) * this.#player.duration);
      onMove();
    });
    this.#play.addEventListener("click", () => {
      if (this.#player === null) return;
      if (!this.#player.isPlaying) {
        this.play(this.#player.speed);
        return;
      }
      this.#player.pause();
      onMove();
    });
  }

  /** From where it is, or from the beginning where that is the end. */
  play(speed: number): void {
    if (this.#player === null) return;
    this.#speed.value = String(speed);
    this.#player.speed = speed;
    this.#player.play();
    this.#onPlay();
    this.#onMove();
  }

  /** Null: there is nothing to play. */
  set player(player: Player | null) {
    this.#player = player;
    this.#bar.hidden = player === null;
    if (player !== null) player.speed = Number(this.#speed.value);
    this.paint();
  }

  paint(): void {
    const player = this.#player;
    if (player === null) return;
    const share = player.duration === 0 ? 1 : player.now / player.duration;
    this.#scrub.value = String(Math.round(1000 * share));
    const clock = `${seconds(player.now)} of ${seconds(player.duration)}`;
    this.#scrub.setAttribute("aria-valuetext", clock);
    at("#clock").textContent = `${(player.now / 1000).toFixed(1)} / ${(player.duration / 1000).toFixed(1)} s`;
    const state = player.isPlaying ? "Pause" : "Play";
    if (this.#play.getAttribute("aria-label") === state && this.#play.hasChildNodes()) return;
    this.#play.setAttribute("aria-label", state);
    this.#play.replaceChildren(icon(player.isPlaying ? PAUSE : PLAY));
  }
}

function icon(path: string): SVGElement {
  const namespace = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(namespace, "svg");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("aria-hidden", "true");
  const shape = document.createElementNS(namespace, "path");
  shape.setAttribute("d", path);
  svg.append(shape);
  return svg;
}
