/** Which of a text is code, between lines that begin with three backticks; the text comes in pieces. */

export interface Run {
  readonly text: string;
  readonly isCode: boolean;
}

const FENCE = "```";

export class Fences {
  /** What comes next is code. */
  isInside = false;
  /** The line so far, as much of it as matters. */
  #line = "";
  /** The line closes a block, and still belongs to it. */
  #isClosing = false;

  /** The runs of `text`, which follows what was given before; the lines of the fences are code. */
  split(text: string): Run[] {
    const runs: Run[] = [];
    let from = 0;
    const end = (at: number): void => {
      if (at > from) runs.push({ text: text.slice(from, at), isCode: this.isInside });
      from = at;
    };
    for (let at = 0; at < text.length; at += 1) {
      const character = text[at] ?? "";
      if (character === "\n") {
        if (this.#isClosing) {
          end(at);
          this.isInside = this.#isClosing = false;
        }
        this.#line = "";
      } else if (this.#line.length < FENCE.length) {
        this.#line += character;
        if (this.#line !== FENCE) continue;
        if (this.isInside) this.#isClosing = true;
        else {
          end(Math.max(from, at + 1 - FENCE.length));
          this.isInside = true;
        }
      }
    }
    end(text.length);
    return runs;
  }
}
