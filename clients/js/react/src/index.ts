/** A Wetink stream in a React component. */

import { useCallback, useEffect, useRef, useState, useSyncExternalStore } from "react";
import {
  type Connection,
  type GenerationRequest,
  type HttpOptions,
  type Stream,
  stream as generate,
  type View,
} from "wetink";

export interface WetinkOptions extends HttpOptions {
  /** The gateway's address; default: that of the page. */
  readonly url?: string;
  /** Carries the streams, in place of one HTTP request for each. */
  readonly connection?: Connection;
}

export interface Wetink {
  /** The newest stream's, or null before the first. */
  readonly view: View | null;
  /** For everything else: `finished`, `cursor`, events. */
  readonly stream: Stream | null;
  /** Starts a generation; one that is still under way is given up. */
  readonly start: (request: GenerationRequest) => Stream;
  /** Ends the generation; what was committed stands. */
  readonly cancel: () => Promise<void>;
}

/** One generation after the other. A component that goes gives up the one under way. */
export function useWetink(options: WetinkOptions = {}): Wetink {
  const [stream, setStream] = useState<Stream | null>(null);
  const aborting = useRef<AbortController | null>(null);
  const chosen = useRef(options);
  useEffect(() => {
    chosen.current = options;
  });
  useEffect(() => () => aborting.current?.abort(), []);
  const start = useCallback((request: GenerationRequest): Stream => {
    aborting.current?.abort();
    aborting.current = new AbortController();
    const { url = "", connection, ...http } = chosen.current;
    const { signal } = aborting.current;
    const next =
      connection === undefined
        ? generate(url, request, { ...http, signal })
        : connection.start(request, { signal });
    setStream(next);
    return next;
  }, []);
  const cancel = useCallback(async () => stream?.cancel(), [stream]);
  return { view: useView(stream), stream, start, cancel };
}

/** A stream's view. Renders at most once per frame, however many events come. */
export function useView(stream: Stream | null): View | null {
  const subscribe = useCallback(
    (changed: () => void) => {
      if (stream === null) return () => {};
      let frame: number | null = null;
      const unsubscribe = stream.subscribe(() => {
        frame ??= requestAnimationFrame(() => {
          frame = null;
          changed();
        });
      });
      return () => {
        unsubscribe();
        if (frame !== null) cancelAnimationFrame(frame);
      };
    },
    [stream],
  );
  const look = useCallback(() => stream?.getSnapshot() ?? null, [stream]);
  return useSyncExternalStore(subscribe, look, look);
}
