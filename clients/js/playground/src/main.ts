/**
 * The playground. Data's way: an entry (live, or played again) → the stage → at the next frame,
 * panes, timeline and figures.
 */

import type { WetinkError } from "wetink";
import { type Health, health, key, LockedError, models, pace, useKey } from "./gateway.js";
import { Live } from "./run/live.js";
import { Player } from "./run/player.js";
import { decodeRecording, PANES, type Recording } from "./run/recording.js";
import { Stage } from "./run/stage.js";
import { questionIn } from "./share/link.js";
import { factsOf, figuresOf, sourceOf } from "./view/figures.js";
import { Levers } from "./view/levers.js";
import { at, element, fill, seconds } from "./view/page.js";
import { Pane } from "./view/pane.js";
import { QuestionForm } from "./view/question-form.js";
import { ReplayBar } from "./view/replay-bar.js";
import { offerSharing } from "./view/sharing.js";
import { Timeline } from "./view/timeline.js";
import { TokenView } from "./view/tokens.js";
import { verdictOf } from "./view/verdict.js";
import { Voice } from "./view/voice.js";

/** How often the gateway is asked how it is: at rest, and while something is wrong with it. */
const CALM_MS = 4000;
const ANXIOUS_MS = 400;
const NOTE_MS = 3500;
const FIGURES_MS = 150;
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
    () => this.#run(),
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
    () => this.#stage.readers.engine.open?.draft_model ?? this.#recording?.question.drafter ?? "the server's",
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
  /** Until another engine runs. */
  #killedAt: number | null = null;
  /** How long that took the last time. */
  #restartMs: number | null = null;
  /** Where each pane went on after a cut, for as long as that is said. */
  #resumedAt: readonly number[] | null = null;
  #forgetting: ReturnType<typeof setTimeout> | undefined;
  #failure: WetinkError | null = null;
  #announced = 0;
  #figuredAt = 0;

  async begin(): Promise<void> {
    offerSharing({
      recording: () => this.#recording,
      question: () => this.#recording?.question ?? this.#form.question,
      onFile: (file) => void this.#openFile(file),
    });
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

  #run(): void {
    if (this.#isLocked) {
      at("#key").focus();
      return;
    }
    this.#live?.leave();
    const { question } = this.#form;
    this.#tell(null);
    this.#caption("");
    this.#restartMs = null;
    this.#resumedAt = null;
    this.#player = null;
    this.#replay.player = null;
    this.#isCut = false;
    clearTimeout(this.#forgetting);
    this.#isAnswer = true;
    this.#live = new Live({
      question,
      verifyDelay: this.#levers.verifyDelay,
      key: key(),
      onChange: () => this.#wake(),
      onEnd: (failure) => this.#ended(failure),
      onCut: (isCut) => this.#cut(isCut),
    });
    this.#show(this.#live.stage);
    this.#form.isRunning = true;
    this.#sayWhatHappened();
  }

  #ended(failure: WetinkError | null): void {
    const live = this.#live;
    this.#live = null;
    this.#form.isRunning = false;
    if (failure?.code === "unauthorized") this.#refused(new LockedError());
    else if (failure !== null) this.#tell(failure);
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
      at("#play").focus({ preventScroll: true });
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
    at(".panes").classList.remove("whole");
    at("#announce").replaceChildren();
    this.#announced = 0;
    this.#figuredAt = 0;
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
    }
    const said = stage.readers.chunk.committed;
    this.#announce(said);
    this.#voice.hear(said);
    this.#timeline.draw(this.#live === null && this.#recording ? this.#wholeSteps() : stage.steps, stage.t);
    at("#soon").hidden = this.#player === null || this.#player.isAtEnd;
    this.#figure(isLive);
    this.#replay.paint();
    this.#levers.allow(this.#live !== null, this.#isCut, this.#health);
    this.#sayVerdict();
  }

  /** Figures are read, not watched: while text comes, a few times a second is enough. */
  #figure(isLive: boolean): void {
    const now = performance.now();
    if (isLive && now - this.#figuredAt < FIGURES_MS) return;
    this.#figuredAt = now;
    for (const pane of this.#panes) fill(at(".facts", pane.root), factsOf(this.#stage, pane.name));
    fill(at("#figures"), figuresOf(this.#stage));
    const [source, words] = [at("#source"), sourceOf(this.#stage)];
    if (source.textContent !== words) source.textContent = words;
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

  #sayVerdict(): void {
    const verdict = at("#verdict");
    const words = verdict.hidden ? verdictOf(this.#stage) : null;
    if (words === null) return;
    verdict.replaceChildren(...words);
    verdict.hidden = false;
    if (this.#panes.some((pane) => pane.isOverflowing)) verdict.append(" ", this.#unfolding());
  }

  /** Panes are as high as a screen allows; who wants to read all of a long answer gets all of it. */
  #unfolding(): HTMLElement {
    const button = element("button", "quiet", "Unfold the whole answer");
    button.type = "button";
    button.addEventListener("click", () => {
      at(".panes").classList.add("whole");
      button.remove();
      // Where the keyboard goes on: at the text that was unfolded.
      this.#panes[0]?.text.focus({ preventScroll: true });
    });
    return button;
  }

  /** A screen reader hears committed sentences, and nothing that may be taken back. */
  #announce(committed: string): void {
    if (!this.#isAnswer || committed.length <= this.#announced) return;
    at("#announce").append(committed.slice(this.#announced));
    this.#announced = committed.length;
  }

  #cut(isCut: boolean): void {
    this.#isCut = isCut;
    clearTimeout(this.#forgetting);
    this.#resumedAt = isCut ? null : this.#panes.map((pane) => this.#stage.readers[pane.name].committed.length);
    if (!isCut) this.#forgetting = setTimeout(() => this.#forget(), NOTE_MS);
    this.#sayWhatHappened();
  }

  #forget(): void {
    this.#resumedAt = null;
    this.#sayWhatHappened();
  }

  #killed(): void {
    this.#killedAt = performance.now();
    this.#restartMs = null;
    clearTimeout(this.#watching);
    this.#setHealth("restarting");
    this.#sayWhatHappened();
    void this.#watch();
  }

  /** Over the panes and beside the levers; a cut and a kill may overlap, and neither hides the other. */
  #sayWhatHappened(): void {
    const isDead = this.#killedAt !== null;
    for (const [index, pane] of this.#panes.entries()) {
      pane.root.dataset["state"] = this.#isCut ? "cut" : "";
      if (this.#isCut) pane.note("Connection cut");
      else if (this.#resumedAt !== null) {
        pane.note(`Resumed at character ${this.#resumedAt[index]}: nothing lost, nothing twice`);
      } else pane.note(isDead && this.#live !== null ? "Engine killed, another one starts" : "");
    }
    const words: string[] = [];
    if (this.#isCut) words.push("Your connection is cut; the engine writes on, see its checks.");
    if (isDead) words.push("The engine is dead. Committed text stands; another engine is being started.");
    else if (this.#restartMs !== null) {
      const goesOn = this.#live === null ? "" : " The text goes on where it was.";
      words.push(`Another engine runs after ${seconds(this.#restartMs)}.${goesOn}`);
    }
    this.#levers.say(words.join(" "));
    this.#wake();
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
    const keys = at("#key-form");
    if (keys.contains(document.activeElement)) this.#form.focus();
    keys.hidden = true;
    // What failed for want of an engine can be asked again.
    if (this.#failure?.retryable) this.#tell(null);
    if (this.#killedAt === null) return;
    this.#restartMs = performance.now() - this.#killedAt;
    this.#killedAt = null;
    this.#sayWhatHappened();
  }

  /** Asks for a key, where that is what is missing; what else went wrong shows in the health. */
  #refused(error: unknown): void {
    if (!(error instanceof LockedError)) return;
    this.#isLocked = true;
    at("#key-label").textContent = key() !== null ? "This key is not taken. Another one:" : "This gateway asks for a key:";
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
    this.#failure = failure;
    const box = at("#refusal");
    box.hidden = failure === null;
    box.textContent = failure === null ? "" : `${failure.message} (${failure.code})`;
  }

  #caption(...words: (string | HTMLElement)[]): void {
    at("#caption").replaceChildren(...words);
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

void new Playground().begin();
