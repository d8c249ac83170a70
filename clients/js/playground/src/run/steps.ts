/** What the engine did: each verification, and where every token came from. */

import type { ServerEvent, Token } from "wetink/protocol";

/** One verification. Counts are tokens. */
export interface Step {
  /** When its verdict came, and its drafts, in milliseconds since the run began. */
  readonly t: number;
  readonly draftedAt: number | null;
  readonly accepted: number;
  readonly rejected: number;
  /** Written by the model itself: what it says where a draft is wrong, or ends. */
  readonly own: number;
  /** Where its text ends. */
  readonly end: number;
  /** Why drafts went: `draft_rejected`, `engine_restart`, … */
  readonly cause: string | null;
}

/** A committed token: where it is, and how it came to be there. */
export interface Origin {
  readonly start: number;
  readonly end: number;
  readonly verifiedAt: number;
  /** Null: the model's own word. */
  readonly draft: { readonly at: number; readonly confidence: number | null } | null;
  /** What had been drafted in its place. */
  readonly instead: string | null;
}

interface Pending {
  readonly start: number;
  readonly end: number;
  readonly at: number;
  readonly confidence: number | null;
}

export class Steps {
  readonly list: Step[] = [];
  readonly origins: Origin[] = [];
  drafted = 0;
  accepted = 0;
  #tail = "";
  #watermark = 0;
  #pending: Pending[] = [];

  /** Share of drafted tokens that were right; null before the first. */
  get acceptance(): number | null {
    return this.drafted === 0 ? null : this.accepted / this.drafted;
  }

  /** Event of a reading with `tokens` that shows every draft. */
  apply(t: number, event: ServerEvent): void {
    switch (event.type) {
      case "open":
        this.#watermark = event.at;
        this.#drop();
        break;
      case "part":
        this.#watermark = 0;
        this.#drop();
        break;
      case "tentative":
        this.#pending.push(...placed(event.tokens ?? [], event.at, t));
        this.#tail += event.text;
        break;
      case "retract":
        this.#judge(t, { text: "", tokens: [], kept: event.at - this.#watermark, cause: event.cause });
        break;
      case "commit": {
        const kept = event.retract === null ? this.#tail.length : event.retract.at - event.at;
        const cause = event.retract?.cause ?? null;
        this.#judge(t, { text: event.text, tokens: event.tokens ?? [], kept, cause });
        break;
      }
      default:
        break;
    }
  }

  /** `kept`: how much of the tail the verdict leaves, the committed part of it included. */
  #judge(
    t: number,
    verdict: { text: string; tokens: readonly Token[]; kept: number; cause: string | null },
  ): void {
    const { text, cause } = verdict;
    const from = this.#watermark;
    const right = Math.min(verdict.kept, text.length);
    const drafts = new Map(this.#pending.map((draft) => [draft.start, draft]));
    let accepted = 0;
    let isFirstWrong = true;
    for (const { start, end } of placed(verdict.tokens, from, t)) {
      const draft = drafts.get(start);
      const isDraft = draft !== undefined && draft.end === end && end <= from + right;
      const gone = this.#tail.slice(start - from);
      const instead = !isDraft && isFirstWrong && gone !== "" ? gone : null;
      if (isDraft) accepted += 1;
      else isFirstWrong = false;
      this.origins.push({
        start,
        end,
        verifiedAt: t,
        draft: isDraft ? { at: draft.at, confidence: draft.confidence } : null,
        instead,
      });
    }
    const end = from + Math.max(verdict.kept, text.length);
    const left = this.#pending.filter((draft) => draft.start >= from + text.length && draft.end <= end);
    const judged = this.#pending.length - left.length;
    const rejected = judged - accepted;
    this.list.push({
      t,
      draftedAt: this.#pending[0]?.at ?? null,
      accepted,
      rejected,
      own: verdict.tokens.length - accepted,
      end: from + text.length,
      cause,
    });
    this.drafted += judged;
    this.accepted += accepted;
    this.#watermark = from + text.length;
    this.#tail = this.#tail.slice(text.length, verdict.kept);
    this.#pending = left;
  }

  /** A new reading begins without the tail of the one before. */
  #drop(): void {
    this.#tail = "";
    this.#pending = [];
  }
}

function placed(tokens: readonly Token[], at: number, t: number): Pending[] {
  let end = at;
  return tokens.map(({ n, confidence }) => {
    const start = end;
    end += n;
    return { start, end, at: t, confidence };
  });
}
