/** A `fetch` that answers from a `ScriptedServer`, and cuts each answer where it is told to. */

import type { ScriptedServer } from "./protocol/scripted-server.js";

/** Answer i ends after `cuts[i]` bytes; what the server says in all is `script`. */
export function scriptedFetch(
  server: ScriptedServer,
  script: (server: ScriptedServer) => string,
  cuts: readonly number[],
): typeof fetch {
  let answers = 0;
  let said = false;
  return (input, init) => {
    const cursor = init?.method === "POST" ? null : new URL(String(input)).searchParams.get("cursor");
    const opened = server.attach(cursor);
    const rest = said ? server.finish() : script(server) + server.finish();
    said = true;
    const bytes = new TextEncoder().encode(opened + rest);
    const cut = cuts[answers] ?? bytes.length;
    answers += 1;
    return Promise.resolve(
      new Response(bytesThenEnd(bytes.subarray(0, cut), cut < bytes.length), {
        headers: { "Content-Type": "text/event-stream", "Content-Location": "/v1/streams/s" },
      }),
    );
  };
}

function bytesThenEnd(bytes: Uint8Array<ArrayBuffer>, isCut: boolean): ReadableStream<Uint8Array<ArrayBuffer>> {
  return new ReadableStream({
    pull(controller) {
      if (bytes.length > 0) {
        controller.enqueue(bytes);
        bytes = bytes.subarray(bytes.length);
      } else if (isCut) controller.error(new TypeError("network error"));
      else controller.close();
    },
  });
}
