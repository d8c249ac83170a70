/** The prompt and its settings: reads and writes a `Question`. */

import type { Model } from "../gateway.js";
import { DEFAULTS, type Question, questionOf } from "../run/recording.js";
import { at, element } from "./page.js";

/** What the embedded model answers sensibly, and shortly. */
const EXAMPLES = [
  ["The smell of rain", "Describe the smell of rain in two sentences."],
  ["A forest walk", "Describe a walk through a quiet forest."],
  ["The blue sky", "Why is the sky blue? Answer in three sentences."],
  ["Python", "Write a Python function that checks whether a number is prime."],
] as const;
/** Positions of the budget's slider. */
const BUDGETS = [0.02, 0.05, 0.1, 0.3, 0.5, 1] as const;
const LENGTHS = [0, 1, 2, 4, 6, 8] as const;
/** What a drafter's name does not say to a newcomer. */
const DRAFTERS: Readonly<Record<string, string>> = {
  ngram: "n-gram (copies from the context)",
  suffix: "suffix (copies from recent answers)",
  head: "head (an EAGLE-3 network)",
  combined: "combined (all of them)",
  model: "model (a small second one)",
};

/** Unless another is chosen: it guesses the same however often a question is asked. */
const FRESH_DRAFTER = "head";

export class QuestionForm {
  readonly #prompt = at<HTMLTextAreaElement>("#prompt");
  readonly #model = at<HTMLSelectElement>("#model");
  readonly #drafter = at<HTMLSelectElement>("#drafter");
  readonly #length = at<HTMLSelectElement>("#length");
  readonly #temperature = at<HTMLInputElement>("#temperature");
  readonly #seed = at<HTMLInputElement>("#seed");
  readonly #tokens = at<HTMLInputElement>("#tokens");
  readonly #budget = at<HTMLInputElement>("#budget");
  readonly #run = at<HTMLButtonElement>("#run");
  #models: readonly Model[] = [];
  /** As a link asked for, before it is known what there is; then as chosen. */
  #wanted: { model: string | undefined; drafter: string | undefined } = {
    model: undefined,
    drafter: undefined,
  };

  constructor(onRun: () => void, onStop: () => void) {
    // Who asks nothing is shown what it is about.
    const ask = (): void => {
      if (this.#prompt.value.trim() === "") this.#prompt.value = EXAMPLES[0][1];
      onRun();
    };
    at<HTMLFormElement>("#form").addEventListener("submit", (event) => {
      event.preventDefault();
      if (this.#run.dataset["does"] === "stop") onStop();
      else ask();
    });
    this.#prompt.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
      event.preventDefault();
      ask();
    });
    at("#examples").append(
      ...EXAMPLES.map(([name, example]) => {
        const button = element("button", "", name);
        button.type = "button";
        button.addEventListener("click", () => {
          this.#prompt.value = example;
          onRun();
        });
        return button;
      }),
    );
    this.#length.append(new Option("the server's", ""), ...LENGTHS.map((n) => new Option(n === 0 ? "0: no guessing" : `${n}`)));
    for (const [index, option] of [...this.#length.options].entries()) {
      if (index > 0) option.value = String(LENGTHS[index - 1]);
    }
    this.#model.addEventListener("change", () => {
      this.#wanted.model = this.#model.value;
      this.#offerDrafters();
    });
    this.#drafter.addEventListener("change", () => {
      this.#wanted.drafter = this.#drafter.value;
    });
    this.#budget.addEventListener("input", () => this.#sayBudget());
    this.#foldSettings();
    this.show(questionOf({}));
  }

  /** As it stands in the form, put in bounds. */
  get question(): Question {
    const seed = this.#seed.value.trim();
    return questionOf({
      prompt: this.#prompt.value.trim(),
      model: this.#model.value,
      drafter: this.#drafter.value,
      ...(this.#length.value === "" ? {} : { draft_length: this.#length.value }),
      ...(/^\d+$/.test(seed) ? { seed } : {}),
      temperature: this.#temperature.value === "" ? DEFAULTS.temperature : this.#temperature.value,
      max_tokens: this.#tokens.value === "" ? DEFAULTS.max_tokens : this.#tokens.value,
      budget: BUDGETS[Number(this.#budget.value)],
    });
  }

  /** The prompt is shown unless it is empty: what somebody has typed stays. */
  show(question: Question): void {
    if (question.prompt !== "") this.#prompt.value = question.prompt;
    this.#temperature.value = String(question.temperature);
    this.#tokens.value = String(question.max_tokens);
    this.#seed.value = question.seed === undefined ? "" : String(question.seed);
    this.#length.value = question.draft_length === undefined ? "" : String(question.draft_length);
    this.#wanted = { model: question.model, drafter: question.drafter };
    this.offer(this.#models);
    const nearest = BUDGETS.findIndex((budget) => budget >= question.budget);
    this.#budget.value = String(nearest === -1 ? BUDGETS.length - 1 : nearest);
    this.#sayBudget();
  }

  offer(models: readonly Model[]): void {
    this.#models = models;
    this.#model.replaceChildren(...models.map(({ id }) => new Option(id, id)));
    choose(this.#model, this.#wanted.model);
    this.#offerDrafters();
  }

  set isRunning(isRunning: boolean) {
    this.#run.dataset["does"] = isRunning ? "stop" : "run";
    at("#run-text").textContent = isRunning ? "Stop" : "Run";
  }

  focus(): void {
    this.#prompt.focus({ preventScroll: true });
  }

  #offerDrafters(): void {
    const model = this.#models.find(({ id }) => id === this.#model.value);
    const known = model?.drafters ?? [];
    this.#drafter.replaceChildren(
      new Option("the server's", ""),
      ...known.filter((name) => name in DRAFTERS).map((name) => new Option(DRAFTERS[name], name)),
    );
    // Copies of recent answers are always right the second time: nothing would be left to see.
    choose(this.#drafter, this.#wanted.drafter ?? (known.includes(FRESH_DRAFTER) ? FRESH_DRAFTER : ""));
  }

  #sayBudget(): void {
    const budget = BUDGETS[Number(this.#budget.value)] ?? 1;
    const text = budget === 1 ? "none: every guess is shown" : `${Math.round(100 * budget)} %`;
    at("#budget-text").textContent = text;
    at("#budget-chip").textContent = budget === 1 ? "no budget" : `budget ${text}`;
    this.#budget.setAttribute("aria-valuetext", text);
  }

  #foldSettings(): void {
    const [button, settings] = [at<HTMLButtonElement>("#settings-button"), at("#settings")];
    const open = (isOpen: boolean): void => {
      button.setAttribute("aria-expanded", String(isOpen));
      settings.hidden = !isOpen;
    };
    button.addEventListener("click", () => open(settings.hidden !== false));
    for (const each of [button, settings]) {
      each.addEventListener("keydown", ({ key }) => {
        if (key !== "Escape" || settings.hidden !== false) return;
        open(false);
        button.focus();
      });
    }
    at("#budget-chip").addEventListener("click", () => {
      open(true);
      this.#budget.focus();
    });
  }
}

/** Leaves the first option where there is no such one. */
function choose(select: HTMLSelectElement, value: string | undefined): void {
  const known = [...select.options].some((option) => option.value === value);
  if (known) select.value = value ?? "";
  else select.selectedIndex = 0;
}
