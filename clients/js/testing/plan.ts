/** Gateways and failing networks for `runtimes/checks.ts`. */

import type { Plan } from "../runtimes/checks.js";
import { ByteProxy } from "./byte-proxy.js";
import { Gateway } from "./gateway.js";
import { longTrace, MIXED, MIXED_TEXT } from "./traces.js";

const LONG = longTrace(5000);
const ENDLESS = longTrace(5000, 10);
/** Within the handshake, the headers, the events. */
const CUTS = [10, 150, 400, 700, 1000, 1400];

/** `origins`: pages of these may read too. */
export async function prepare(origins: readonly string[] = []): Promise<{ plan: Plan; stop: () => Promise<void> }> {
  const [open, locked] = await Promise.all([
    Gateway.start({ mixed: MIXED, long: LONG.trace, endless: ENDLESS.trace }, { origins }),
    Gateway.start({ mixed: MIXED }, { keyed: true, origins }),
  ]);
  const proxies = CUTS.map((at) => new ByteProxy(open.url, [at, at * 2, 700]));
  const failing = await Promise.all(proxies.map((proxy) => proxy.listen()));
  const stop = async (): Promise<void> => {
    await Promise.all(proxies.map((proxy) => proxy.close()));
    await Promise.all([open.stop(), locked.stop()]);
  };
  const texts = { mixed: MIXED_TEXT, long: LONG.text };
  return { plan: { url: open.url, texts, failing, locked: { url: locked.url, key: locked.key ?? "" } }, stop };
}
