/**
 * The playground. Data's way: an entry (live, or played again) → the stage → at the next frame,
 * panes, timeline and figures.
 */

import type { WetinkError } from "wetink";
import { hasKey, type Health, health, LockedError, models, pace, socketQuery, useKey } from "./gateway.js";
import { Live } from "./run/live.js";
import { Player } from "./run/player.js";
import { decodeRecording, encodeRecording, PANES, type Question, type Recording } from "./run/recording.js";
import { lead } from "./run/reader.js";
import { Stage } from "./run/stage.js";
import { linkOf, questionIn } from "./share/link.js";
import { type Language, snippet } from "./share/snippets.js";
import { Levers } from "./view/levers.js";
import { at, element, type Fact, fill, percent, seconds } from "./view/page.js";
import { Pane } from "./view/pane.js";
import { QuestionForm } from "./view/question-form.js";
import { ReplayBar } from "./view/replay-bar.js";
import { Timeline } from "./view/timeline.js";
import { TokenView } from "./view/tokens.js";
import { FELT_MS, verdictOf } from "./view/verdict.js";
import { Voice } from "./view/voice.js";

/** How often the gateway is asked how it is: at rest, and while something is wrong with it. */
const CALM_MS = 4000;
const ANXIOUS_MS = 400;
const NOTE_MS = 3500;
/** What is over sooner has not been seen. */
const SEEN_MS = 3000;
const SLOWER = 10;
const STATUS: Readonly<Record<Health, string>> = {
  ready: "ready",
  loading: "the model is loading",
  restarting: "the engine is restarting",
  failed: "the engine could not start",
  stopping: "the gateway is stopping",
  down: "the gateway does not answer",
};

class Playground {
  readonly #panes = PANES.map((name) => new Pane(name));
  readonly #form = new QuestionForm(
    () => void this.#run(),
    () => this.#live?.stop(),
  );
  readonly #levers = new Levers(
    () => this.#live?.cut(),
    () => this.#killed(),
  );
  readonly #replay = new ReplayBar(
    () => this.#jump(),
    () => this.#voice.reset(this.#stage.readers.chunk.committed),
  );
  readonly #timeline = new Timeline(at<HTMLCanvasElement>("#timeline"), ({ t }) => {
    this.#player?.pause();
    this.#player?.seek(t);
    this.#jump();
  });
  readonly #tokens = new TokenView(
    this.#panes,
    () => this.#stage.steps,
    () => this.#recording?.question.drafter ?? "the server's",
  );
  readonly #voice = new Voice();
  #health: Health = "loading";
  #isLocked = false;
  #isCut = false;
  /** What is on show was asked for here, and is no replay. */
  #isAnswer = false;
  #live: Live | null = null;
  #player: Player | null = null;
  #recording: Recording | null = null;
  /** What the panes show is painted from this one. */
  #stage = new Stage();
  #frame: number | null = null;
  #lastFrame = 0;
  #killedAt: number | null = null;
  #notes: ReturnType<typeof setTimeout> | undefined;

  async begin(): Promise<void> {
    this.#share();
    at("#key-form").addEventListener("submit", (event) => {
      event.preventDefault();
      useKey(at<HTMLInputElement>("#key").value.trim());
      void this.#greet().then(() => this.#setHealth(this.#health));
    });
    new ResizeObserver(() => this.#wake()).observe(at("#timeline"));
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.#wake());
    this.#form.isRunning = false;
    this.#levers.allow(false, false, this.#health);
    const asked = questionIn(location.hash);
    if (asked !== null) {
      this.#form.show(asked);
      this.#caption("Somebody shared this question with you. Run it: with its seed, the answer is the same.");
    } else void this.#playExample();
    this.#form.focus();
    await this.#watch();
  }

  /** The page comes alive by itself, with or without a model. */
  async #playExample(): Promise<void> {
    const answer = await fetch("/example.json");
    if (!answer.ok) return;
    const recording = decodeRecording(await answer.text());
    if (this.#live !== null || this.#recording !== null) return;
    const player = this.#open(
      recording,
      `A recorded answer to “${recording.question.prompt}” Ask your own above.`,
    );
    if (matchMedia("(prefers-reduced-motion: reduce)").matches) {
      player.seek(player.duration);
      this.#jump();
    } else player.play();
  }

  async #run(): Promise<void> {
    let query: string;
    try {
      query = await socketQuery();
    } catch (error) {
      this.#refused(error);
      return;
    }
    this.#live?.leave();
    const { question } = this.#form;
    this.#tell(null);
    this.#caption("");
    this.#levers.say("");
    this.#player = null;
    this.#replay.player = null;
    this.#isCut = false;
    this.#isAnswer = true;
    this.#live = new Live({
      question,
      verifyDelay: this.#levers.verifyDelay,
      socketQuery: query,
      onChange: () => this.#wake(),
      onEnd: (failure) => this.#ended(failure),
      onCut: (isCut) => this.#cut(isCut),
    });
    this.#show(this.#live.stage);
    this.#form.isRunning = true;
    this.#wake();
  }

  #ended(failure: WetinkError | null): void {
    const live = this.#live;
    this.#live = null;
    this.#form.isRunning = false;
    if (failure !== null) this.#tell(failure);
    if (live !== null && live.recording.entries.length > 0) {
      this.#recording = live.recording;
      this.#player = new Player(live.recording);
      this.#player.seek(this.#player.duration);
      this.#stage = this.#player.stage;
      this.#replay.player = this.#player;
      const reason = this.#stage.readers.hold.receiver.finish?.reason;
      if (reason !== undefined && reason !== "cancelled" && this.#player.duration < SEEN_MS) {
        this.#offerSlowly(this.#player);
      }
    }
    this.#wake();
  }

  /** A fast engine is over before anybody has seen what the panes are about. */
  #offerSlowly(player: Player): void {
    const button = element("button", "", `Watch it ${SLOWER} times slower`);
    button.type = "button";
    button.addEventListener("click", () => {
      this.#caption("");
      this.#replay.play(1 / SLOWER);
    });
    this.#caption(`That took ${seconds(player.duration)}, too fast to see. `, button);
  }

  /** A recording, from its beginning. */
  #open(recording: Recording, caption: string): Player {
    this.#live?.leave();
    this.#live = null;
    this.#form.isRunning = false;
    this.#isAnswer = false;
    this.#recording = recording;
    const player = new Player(recording);
    this.#player = player;
    this.#replay.player = player;
    this.#show(player.stage);
    this.#caption(caption);
    this.#wake();
    return player;
  }

  /** Another stage: the panes begin anew. */
  #show(stage: Stage): void {
    this.#stage = stage;
    this.#tokens.hide();
    this.#voice.reset(stage.readers.chunk.committed);
    for (const pane of this.#panes) pane.reset();
    at("#verdict").hidden = true;
    at("#announce").replaceChildren();
  }

  /** To where the player is, as a still. */
  #jump(): void {
    if (this.#player === null) return;
    const stills = at(".stage");
    stills.classList.add("still");
    this.#isAnswer = false;
    this.#show(this.#player.stage);
    this.#paint();
    if (this.#player.isPlaying) requestAnimationFrame(() => stills.classList.remove("still"));
    this.#wake();
  }

  #wake(): void {
    if (this.#frame === null) this.#frame = requestAnimationFrame((now) => this.#onFrame(now));
  }

  #onFrame(now: number): void {
    this.#frame = null;
    const elapsed = this.#lastFrame === 0 ? 0 : Math.min(now - this.#lastFrame, 250);
    const player = this.#player;
    const isPlaying = player?.isPlaying ?? false;
    if (isPlaying) {
      at(".stage").classList.remove("still");
      player?.advance(elapsed);
    }
    this.#paint();
    this.#lastFrame = isPlaying ? now : 0;
    if (isPlaying) this.#wake();
  }

  #paint(): void {
    const stage = this.#stage;
    const isLive = this.#live !== null || (this.#player !== null && !this.#player.isAtEnd);
    for (const pane of this.#panes) {
      const reader = stage.readers[pane.name];
      pane.paint(reader, isLive && reader.receiver.state !== "finished");
      fill(at(".facts", pane.root), factsOf(stage, pane.name));
    }
    const said = stage.readers.chunk.committed;
    this.#announce(said);
    this.#voice.hear(said);
    this.#timeline.draw(this.#live === null && this.#recording ? this.#wholeSteps() : stage.steps, stage.t);
    fill(at("#figures"), this.#figures());
    this.#replay.paint();
    this.#levers.allow(this.#live !== null, this.#isCut, this.#health);
    this.#sayVerdict();
  }

  /** All of the recording's, so that a moment can be picked that is still to come. */
  #wholeSteps(): Stage["steps"] {
    if (this.#whole?.recording !== this.#recording && this.#recording !== null) {
      const player = new Player(this.#recording);
      player.seek(player.duration);
      this.#whole = player;
    }
    return this.#whole?.stage.steps ?? this.#stage.steps;
  }
  #whole: Player | null = null;

  #figures(): Fact[] {
    const { steps, tokensPerSecond } = this.#stage;
    if (steps.list.length === 0) return [];
    return [
      ["speed", tokensPerSecond === null ? "–" : `${tokensPerSecond.toFixed(tokensPerSecond < 10 ? 1 : 0)} tok/s`],
      ["guesses right", percent(steps.acceptance)],
      ["erasure (NE)", this.#stage.readers.retract.erasure.toFixed(2)],
      ["longest tail", String(this.#stage.readers.retract.longestTail)],
      ["tokens per check", (steps.origins.length / steps.list.length).toFixed(1)],
    ];
  }

  #sayVerdict(): void {
    const verdict = at("#verdict");
    const words = verdict.hidden ? verdictOf(this.#stage) : null;
    if (words === null) return;
    verdict.replaceChildren(...words);
    verdict.hidden = false;
  }

  /** A screen reader hears committed sentences, and nothing that may be taken back. */
  #announce(committed: string): void {
    const region = at("#announce");
    const before = region.textContent?.length ?? 0;
    if (this.#isAnswer && committed.length > before) region.append(committed.slice(before));
  }

  #cut(isCut: boolean): void {
    this.#isCut = isCut;
    clearTimeout(this.#notes);
    const had = this.#panes.map((pane) => this.#stage.readers[pane.name].committed.length);
    for (const [index, pane] of this.#panes.entries()) {
      pane.root.dataset["state"] = isCut ? "cut" : "";
      pane.note(isCut ? "Connection cut" : `Resumed at character ${had[index]}: nothing lost, nothing twice`);
    }
    this.#levers.say(isCut ? "Your connection is cut. The engine writes on; see its checks on the left." : "");
    if (!isCut) this.#notes = setTimeout(() => this.#clearNotes(), NOTE_MS);
    this.#wake();
  }

  #clearNotes(): void {
    for (const pane of this.#panes) pane.note("");
  }

  #killed(): void {
    this.#killedAt = performance.now();
    this.#levers.say("The engine is dead. Committed text stands; another engine is being started.");
    if (this.#live !== null) for (const pane of this.#panes) pane.note("Engine killed, another one starts");
    clearTimeout(this.#watching);
    this.#setHealth("restarting");
    void this.#watch();
  }

  #watching: ReturnType<typeof setTimeout> | undefined;

  /** Asks the gateway how it is, again and again. */
  async #watch(): Promise<void> {
    const now = await health();
    const isNews = now !== this.#health || at("#status").dataset["state"] === "loading";
    if (isNews && now === "ready") await this.#greet();
    this.#setHealth(now);
    this.#watching = setTimeout(() => void this.#watch(), now === "ready" && this.#killedAt === null ? CALM_MS : ANXIOUS_MS);
  }

  async #greet(): Promise<void> {
    try {
      this.#form.offer(await models());
      this.#levers.offer(await pace());
    } catch (error) {
      this.#refused(error);
      return;
    }
    this.#isLocked = false;
    at("#key-form").hidden = true;
    if (this.#killedAt === null) return;
    const took = performance.now() - this.#killedAt;
    this.#killedAt = null;
    this.#clearNotes();
    const goesOn = this.#live === null ? "" : " The text goes on where it was.";
    this.#levers.say(`Another engine runs after ${seconds(took)}.${goesOn}`);
  }

  /** Asks for a key, where that is what is missing; what else went wrong shows in the health. */
  #refused(error: unknown): void {
    if (!(error instanceof LockedError)) return;
    this.#isLocked = true;
    at("#key-label").textContent = hasKey() ? "This key is not taken. Another one:" : "This gateway asks for a key:";
    at("#key-form").hidden = false;
  }

  #setHealth(now: Health): void {
    this.#health = now;
    if (now === "ready" && this.#isLocked) {
      at("#status").dataset["state"] = "down";
      at("#status-text").textContent = "a key is needed";
      this.#wake();
      return;
    }
    const name = this.#form.question.model;
    at("#status").dataset["state"] = now === "failed" || now === "stopping" ? "down" : now;
    at("#status-text").textContent = now === "ready" ? `${name ?? "model"}, ready` : STATUS[now];
    this.#wake();
  }

  #tell(failure: WetinkError | null): void {
    const box = at("#refusal");
    box.hidden = failure === null;
    box.textContent = failure === null ? "" : `${failure.message} (${failure.code})`;
  }

  #caption(...words: (string | HTMLElement)[]): void {
    at("#caption").replaceChildren(...words);
  }

  get #question(): Question {
    return this.#recording?.question ?? this.#form.question;
  }

  #share(): void {
    at("#share-link").addEventListener("click", () => {
      const link = linkOf(this.#question, location.href);
      history.replaceState(null, "", link);
      void copy(link);
    });
    for (const button of document.querySelectorAll<HTMLElement>("[data-copy]")) {
      const language = button.dataset["copy"] as Language;
      button.addEventListener("click", () => void copy(snippet(language, this.#question, location.origin)));
    }
    at("#share-file").addEventListener("click", () => {
      if (this.#recording !== null) save(encodeRecording(this.#recording));
    });
    at<HTMLInputElement>("#open-file").addEventListener("change", ({ target }) => {
      const [file] = (target as HTMLInputElement).files ?? [];
      if (file !== undefined) void this.#openFile(file);
    });
  }

  async #openFile(file: File): Promise<void> {
    this.#tell(null);
    try {
      const recording = decodeRecording(await file.text());
      this.#form.show(recording.question);
      this.#open(recording, `${file.name}: ${recording.model}, recorded`).play();
      this.#wake();
    } catch (error) {
      this.#tell(Object.assign(error as WetinkError, { code: file.name }));
    }
  }
}

function factsOf(stage: Stage, name: (typeof PANES)[number]): Fact[] {
  const reader = stage.readers[name];
  if (reader.firstVisible === null) return [["first text", "–"]];
  const facts: Fact[] = [];
  const ahead = name === "hold" ? 0 : lead(reader, stage.readers.hold);
  // The first word is the model's own, there is no guess yet: retract has it when hold has it.
  if (ahead < FELT_MS) facts.push(["first text", seconds(reader.firstVisible)]);
  if (Math.abs(ahead) >= FELT_MS) {
    facts.push([ahead > 0 ? "ahead of hold" : "behind hold", seconds(Math.abs(ahead))]);
  }
  facts.push(
    reader.erased === 0 ? ["taken back", "nothing"] : ["taken back", `${reader.erased} letters`, true],
  );
  return facts;
}

async function copy(text: string): Promise<void> {
  await navigator.clipboard.writeText(text);
  at("#copied").textContent = "Copied";
  setTimeout(() => (at("#copied").textContent = ""), NOTE_MS);
}

function save(text: string): void {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: "application/json" }));
  link.download = "wetink-recording.json";
  link.click();
  URL.revokeObjectURL(link.href);
}

void new Playground().begin();
