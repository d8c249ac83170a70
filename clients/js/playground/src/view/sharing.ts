/** Hands a run on: as a link, as a file, as code. */

import { encodeRecording, type Question, type Recording } from "../run/recording.js";
import { linkOf } from "../share/link.js";
import { type Language, snippet } from "../share/snippets.js";
import { at } from "./page.js";

const SAID_MS = 3500;
const KEPT_MS = 60_000;

export interface Shared {
  /** Null before there is one. */
  readonly recording: () => Recording | null;
  readonly question: () => Question;
  readonly onFile: (file: File) => void;
}

export function offerSharing({ recording, question, onFile }: Shared): void {
  at("#share-link").addEventListener("click", () => {
    const link = linkOf(question(), location.href);
    history.replaceState(null, "", link);
    void copy(link);
  });
  for (const button of document.querySelectorAll<HTMLElement>("[data-copy]")) {
    const language = button.dataset["copy"] as Language;
    button.addEventListener("click", () => void copy(snippet(language, question(), location.origin)));
  }
  at("#share-file").addEventListener("click", () => {
    const shared = recording();
    if (shared !== null) save(encodeRecording(shared));
  });
  at<HTMLInputElement>("#open-file").addEventListener("change", ({ target }) => {
    const [file] = (target as HTMLInputElement).files ?? [];
    if (file !== undefined) onFile(file);
  });
}

async function copy(text: string): Promise<void> {
  await navigator.clipboard.writeText(text);
  at("#copied").textContent = "Copied";
  setTimeout(() => (at("#copied").textContent = ""), SAID_MS);
}

function save(text: string): void {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: "application/json" }));
  link.download = "wetink-recording.json";
  link.click();
  // The browser reads it when it gets round to it; a long run is megabytes.
  setTimeout(() => URL.revokeObjectURL(link.href), KEPT_MS);
}
