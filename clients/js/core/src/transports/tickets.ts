/** A key in exchange for a ticket: short-lived leave that fits into a URL, where a key must not be. */

import { endpoint, refusal } from "./http.js";

/** Leave to open one WebSocket at `base`. Throws a `WetinkError` where the key is refused. */
export function socketTicket(base: string | URL, key: string, ask?: typeof fetch): Promise<string> {
  return ticketFrom(endpoint(base, "tickets"), key, {}, ask);
}

/**
 * Leave to read the stream whose `events` is that path, under the policy and in the unit its query
 * names: the gateway lets a ticket do nothing else. Throws a `WetinkError` where the key is refused.
 */
export function streamTicket(events: URL, key: string, ask?: typeof fetch): Promise<string> {
  const url = new URL(events.pathname.replace(/\/events$/, "/tickets"), events);
  const policy = events.searchParams.get("policy");
  const body = {
    offsets: events.searchParams.get("offsets"),
    ...(policy !== null && { policy: policy.startsWith("{") ? (JSON.parse(policy) as object) : policy }),
  };
  return ticketFrom(url, key, body, ask);
}

async function ticketFrom(
  url: URL,
  key: string,
  body: object,
  ask: typeof fetch = globalThis.fetch,
): Promise<string> {
  const response = await ask(url, {
    method: "POST",
    headers: { Authorization: `Bearer ${key}`, "Content-Type": "application/json" },
    body: JSON.stringify(body),
  });
  if (!response.ok) throw await refusal(response);
  return ((await response.json()) as { ticket: string }).ticket;
}
