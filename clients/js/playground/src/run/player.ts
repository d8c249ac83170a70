/** Plays a recording: at any speed, from any moment. Time is handed in. */

import { durationOf, type Recording } from "./recording.js";
import { Stage } from "./stage.js";

export class Player {
  readonly recording: Recording;
  readonly duration: number;
  stage = new Stage();
  /** Where it is, in milliseconds since the run began. */
  now = 0;
  speed = 1;
  isPlaying = false;
  #next = 0;

  constructor(recording: Recording) {
    this.recording = recording;
    this.duration = durationOf(recording);
  }

  get isAtEnd(): boolean {
    return this.now >= this.duration;
  }

  /** From the beginning, where it has come to the end. */
  play(): void {
    if (this.isAtEnd) this.seek(0);
    this.isPlaying = true;
  }

  pause(): void {
    this.isPlaying = false;
  }

  /** So many milliseconds have passed. */
  advance(elapsed: number): void {
    if (!this.isPlaying) return;
    this.now = Math.min(this.now + elapsed * this.speed, this.duration);
    this.#apply();
    if (this.isAtEnd) this.isPlaying = false;
  }

  /** Backwards means: all over again, on a new stage. */
  seek(t: number): void {
    if (t < this.now) {
      this.stage = new Stage();
      this.#next = 0;
    }
    this.now = Math.min(Math.max(t, 0), this.duration);
    this.#apply();
  }

  #apply(): void {
    const { entries } = this.recording;
    for (let entry = entries[this.#next]; entry !== undefined && entry.t <= this.now; ) {
      this.stage.apply(entry);
      this.#next += 1;
      entry = entries[this.#next];
    }
  }
}
