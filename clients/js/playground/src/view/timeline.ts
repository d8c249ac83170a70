/** One column per verification: what was kept, what was taken back, and the model's own word. */

import type { Step, Steps } from "../run/steps.js";

const CELL = 9;
const GAP = 2;
const HEIGHT = 120;
/** Where kept and lost part. */
const BASE = 62;
const ROW = 7;

export interface Colours {
  readonly kept: string;
  readonly own: string;
  readonly lost: string;
  readonly line: string;
}

export class Timeline {
  readonly #canvas: HTMLCanvasElement;
  #columns: readonly Step[] = [];
  #pitch = CELL + GAP;
  #first = 0;

  constructor(canvas: HTMLCanvasElement, onPick: (step: Step) => void) {
    this.#canvas = canvas;
    canvas.addEventListener("click", ({ offsetX }) => {
      const step = this.#columns[this.#first + Math.floor(offsetX / this.#pitch)];
      if (step !== undefined) onPick(step);
    });
  }

  /** `now`: the moment on show; what came later is drawn pale. */
  draw(all: Steps, now: number): void {
    const canvas = this.#canvas;
    const width = canvas.clientWidth;
    const ratio = window.devicePixelRatio || 1;
    if (canvas.width !== Math.round(width * ratio)) {
      canvas.width = Math.round(width * ratio);
      canvas.height = Math.round(HEIGHT * ratio);
    }
    const pen = canvas.getContext("2d");
    if (pen === null) return;
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, width, HEIGHT);
    this.#columns = all.list;
    this.#pitch = Math.min(CELL + GAP, Math.max(4, width / Math.max(1, all.list.length)));
    const fitting = Math.floor(width / this.#pitch);
    const last = all.list.findLastIndex((step) => step.t <= now);
    this.#first = Math.max(0, Math.min(all.list.length - fitting, last - fitting + 3));
    const colours = coloursOf(canvas);
    pen.fillStyle = colours.line;
    pen.fillRect(0, BASE, width, 1);
    all.list.slice(this.#first, this.#first + fitting).forEach((step, index) => {
      pen.globalAlpha = step.t <= now ? 1 : 0.25;
      this.#column(pen, step, { x: index * this.#pitch, colours });
    });
    pen.globalAlpha = 1;
  }

  /** Kept upwards from the line, what the model wrote itself on top, what was lost below. */
  #column(
    pen: CanvasRenderingContext2D,
    step: Step,
    { x, colours }: { x: number; colours: Colours },
  ): void {
    const size = Math.max(2, this.#pitch - GAP);
    const up = Math.min(ROW, (BASE - GAP) / Math.max(1, step.accepted + step.own));
    for (let i = 0; i < step.accepted + step.own; i += 1) {
      pen.fillStyle = i < step.accepted ? colours.kept : colours.own;
      pen.fillRect(x, BASE - 1 - (i + 1) * up, size, Math.max(1, up - 1.5));
    }
    const down = Math.min(ROW, (HEIGHT - BASE - GAP) / Math.max(1, step.rejected));
    pen.strokeStyle = colours.lost;
    pen.lineWidth = 1.2;
    for (let i = 0; i < step.rejected; i += 1) {
      pen.strokeRect(x + 0.6, BASE + 3.1 + i * down, size - 1.2, Math.max(0.6, down - 2.7));
    }
  }
}

function coloursOf(element: Element): Colours {
  const style = getComputedStyle(element);
  const colour = (name: string): string => style.getPropertyValue(name).trim();
  return { kept: colour("--wet"), own: colour("--ink"), lost: colour("--red"), line: colour("--line") };
}
