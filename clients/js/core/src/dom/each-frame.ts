/** From changes to frames. */

import type { Stream } from "../stream.js";
import type { View } from "../view.js";

/**
 * Calls `paint` with the newest view, at most once per animation frame, and gives a function that
 * ends that. A page in the background has no frames: it is painted when it is looked at again.
 */
export function eachFrame(stream: Stream, paint: (view: View) => void): () => void {
  let frame: number | null = null;
  const unsubscribe = stream.subscribe(() => {
    frame ??= requestAnimationFrame(() => {
      frame = null;
      paint(stream.getSnapshot());
    });
  });
  return () => {
    unsubscribe();
    if (frame !== null) cancelAnimationFrame(frame);
  };
}
