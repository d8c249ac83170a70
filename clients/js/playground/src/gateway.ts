/** What the page asks its gateway besides text: how it is, what it serves, what a demonstration may do. */

export interface Model {
  readonly id: string;
  readonly drafters: readonly string[];
}

/** `down`: it does not answer. */
export type Health = "ready" | "loading" | "restarting" | "failed" | "stopping" | "down";

export interface Pace {
  readonly verify_delay_ms: number;
  readonly most: number;
}

/** Where the key is kept, for as long as the page's tab is open. */
const KEY = "wetink-key";

/** The gateway asks for a key, or for another one. */
export class LockedError extends Error {}

export function useKey(given: string): void {
  sessionStorage.setItem(KEY, given);
}

/** Null where none was given. */
export function key(): string | null {
  return sessionStorage.getItem(KEY);
}

/** Throws a LockedError where the key is missing or wrong. */
async function ask(path: string, init: RequestInit = {}): Promise<Response> {
  const headers = new Headers(init.headers);
  const given = key();
  if (given !== null) headers.set("Authorization", `Bearer ${given}`);
  const answer = await fetch(path, { ...init, headers, cache: "no-store" });
  if (answer.status === 401) throw new LockedError();
  return answer;
}

/** Asks `/healthz`, which is no error while the engine restarts: a browser would show its user each one. */
export async function health(): Promise<Health> {
  try {
    const answer = await fetch("/healthz", { cache: "no-store" });
    return ((await answer.json()) as { readiness: Health }).readiness;
  } catch {
    return "down";
  }
}

export async function models(): Promise<readonly Model[]> {
  const answer = await ask("/v1/models");
  return ((await answer.json()) as { data: readonly Model[] }).data;
}

/** Null where this is no demonstration. */
export async function pace(): Promise<Pace | null> {
  const answer = await ask("/v1/demonstration");
  return answer.status === 200 ? ((await answer.json()) as Pace) : null;
}

export async function slowDown(delay: number): Promise<void> {
  await ask("/v1/demonstration", {
    method: "PUT",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ verify_delay_ms: delay }),
  });
}

/** Whether there was an engine to kill. */
export async function killEngine(): Promise<boolean> {
  return (await ask("/v1/demonstration/kill", { method: "POST" })).ok;
}
