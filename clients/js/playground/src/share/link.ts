/** A question in a link's fragment: it never leaves the browser, and with a seed it says the same again. */

import { DEFAULTS, type Question, questionOf } from "../run/recording.js";

export function linkOf(question: Question, base: string): string {
  const fields = new URLSearchParams();
  for (const [key, value] of Object.entries(question)) {
    const isUsual = key in DEFAULTS && DEFAULTS[key as keyof typeof DEFAULTS] === value;
    if (value !== undefined && !isUsual) fields.set(key, String(value));
  }
  return `${base.split("#")[0]}#${fields}`;
}

/** Null for a fragment without a question. */
export function questionIn(fragment: string): Question | null {
  const question = questionOf(Object.fromEntries(new URLSearchParams(fragment.replace(/^#/, ""))));
  return question.prompt === "" ? null : question;
}
