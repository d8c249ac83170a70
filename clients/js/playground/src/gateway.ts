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

export async function health(): Promise<Health> {
  try {
    const answer = await fetch("/readyz", { cache: "no-store" });
    return ((await answer.json()) as { status: Health }).status;
  } catch {
    return "down";
  }
}

export async function models(): Promise<readonly Model[]> {
  const answer = await fetch("/v1/models", { cache: "no-store" });
  return ((await answer.json()) as { data: readonly Model[] }).data;
}

/** Null where this is no demonstration. */
export async function pace(): Promise<Pace | null> {
  const answer = await fetch("/v1/demonstration", { cache: "no-store" });
  return answer.status === 200 ? ((await answer.json()) as Pace) : null;
}

export async function slowDown(delay: number): Promise<void> {
  await fetch("/v1/demonstration", {
    method: "PUT",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ verify_delay_ms: delay }),
  });
}

/** Whether there was an engine to kill. */
export async function killEngine(): Promise<boolean> {
  return (await fetch("/v1/demonstration/kill", { method: "POST" })).ok;
}
