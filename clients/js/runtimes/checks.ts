/** What holds in every runtime; run in each by `test/workers.test.ts` and `test/runtimes.heavy.ts`. */

import { attach, connect, eventSource, type GenerationRequest, type Retry, type Stream, stream } from "wetink";

/** Prepared outside, where there are processes and sockets. */
export interface Plan {
  /** A gateway that plays `mixed`, `long` and `endless`. */
  readonly url: string;
  readonly texts: Readonly<Record<"mixed" | "long", string>>;
  /** Addresses of networks to that gateway, each of which fails at another byte. */
  readonly failing: readonly string[];
  /** A gateway that asks for a key and plays `mixed`. */
  readonly locked: { readonly url: string; readonly key: string };
}

interface Way {
  readonly start: (request: GenerationRequest) => Stream;
  readonly attach: (id: string) => Stream;
  readonly close: () => void;
}

const FAST: Retry = { firstMs: 1, longestMs: 1 };
const WAYS: Readonly<Record<string, (url: string, key?: string) => Way>> = {
  fetch: (url, key) => {
    const options = { retry: FAST, ...(key !== undefined && { key }) };
    return {
      start: (request) => stream(url, request, options),
      attach: (id) => attach(url, id, options),
      close: () => {},
    };
  },
  WebSocket: (url, key) => {
    const connection = connect(url, { retry: FAST, ...(key !== undefined && { key }) });
    return {
      start: (request) => connection.start(request),
      attach: (id) => connection.attach(id),
      close: () => connection.close(),
    };
  },
};

type Check = (open: (url: string, key?: string) => Way, plan: Plan) => Promise<void>;

const CHECKS: Readonly<Record<string, Check>> = {
  "text, in every unit": (open, { url, texts }) =>
    using(open(url), async (way) => {
      for (const offsets of ["utf-16", "codepoint", "utf-8"] as const) {
        const { text, digest } = await way.start({ model: "mixed", prompt: "hi", policy: "retract", offsets }).finished;
        same([text, digest], [texts.mixed, "match"]);
      }
    }),
  "ten thousand events": (open, { url, texts }) =>
    using(open(url), async (way) => {
      const reading = way.start({ model: "long", prompt: "hi", policy: "retract" });
      let text = "";
      for await (const event of reading) if (event.type === "commit") text += event.text;
      same([text, (await reading.finished).digest], [texts.long, "match"]);
    }),
  "a second reader": (open, { url, texts }) =>
    using(open(url), async (way) => {
      const first = way.start({ model: "mixed", prompt: "hi" });
      await first.finished;
      let text = "";
      for await (const piece of way.attach(first.id ?? "").committed()) text += piece;
      same(text, texts.mixed);
    }),
  "a refusal": (open, { url }) =>
    using(open(url), async (way) => {
      const error: unknown = await way.start({ model: "mixed", prompt: "hi", temperature: 99 }).finished.catch(
        (thrown: unknown) => thrown,
      );
      same((error as { code: string }).code, "invalid_value");
    }),
  "a cancelled stream": (open, { url }) =>
    using(open(url), async (way) => {
      const reading = way.start({ model: "endless", prompt: "hi" });
      for await (const { type } of reading) if (type === "commit") break;
      await reading.cancel();
      same((await reading.finished).reason, "cancelled");
    }),
  "an aborted stream": (open, { url }) =>
    using(open(url), async () => {
      const aborting = new AbortController();
      const reading = stream(url, { model: "endless", prompt: "hi" }, { signal: aborting.signal });
      for await (const { type } of reading) if (type === "commit") break;
      aborting.abort();
      const error: unknown = await reading.finished.catch((thrown: unknown) => thrown);
      same((error as { code: string }).code, "aborted");
    }),
  "networks that fail": async (open, { failing, texts }) => {
    for (const url of failing) {
      await using(open(url), async (way) => {
        const { text, digest } = await way.start({ model: "mixed", prompt: "hi", policy: "retract" }).finished;
        same([text, digest], [texts.mixed, "match"]);
      });
    }
  },
  "a key": (open, { locked, texts }) =>
    using(open(locked.url, locked.key), async (way) => {
      same((await way.start({ model: "mixed", prompt: "hi" }).finished).text, texts.mixed);
    }),
};

/** Each check by name: null where it holds, or what went wrong. */
export async function checks(plan: Plan): Promise<Record<string, string | null>> {
  const results: Record<string, string | null> = {};
  const note = async (name: string, check: () => Promise<void>): Promise<void> => {
    results[name] = await check().then(() => null, String);
  };
  for (const [way, open] of Object.entries(WAYS)) {
    for (const [name, check] of Object.entries(CHECKS)) await note(`${name}, ${way}`, () => check(open, plan));
  }
  if ("EventSource" in globalThis) await note("a key, EventSource", () => readByEventSource(plan));
  return results;
}

async function readByEventSource({ locked: { url, key }, texts }: Plan): Promise<void> {
  const answer = await fetch(`${url}/v1/streams`, {
    method: "POST",
    headers: { "Content-Type": "application/json", Authorization: `Bearer ${key}` },
    body: JSON.stringify({ model: "mixed", prompt: "hi" }),
  });
  const { events } = (await answer.json()) as { events: string };
  const reading = eventSource(new URL(`${events}?policy=chunk:sentence`, url), { key, retry: FAST });
  same((await reading.finished).text, texts.mixed);
}

async function using(way: Way, check: (way: Way) => Promise<void>): Promise<void> {
  try {
    await check(way);
  } finally {
    way.close();
  }
}

function same(is: unknown, should: unknown): void {
  const [one, other] = [JSON.stringify(is), JSON.stringify(should)];
  if (one !== other) throw new Error(`${one?.slice(0, 300)} instead of ${other?.slice(0, 300)}`);
}
