/** A Wetink stream's events as stream parts of the AI SDK. */

import type {
  LanguageModelV3Content,
  LanguageModelV3FinishReason,
  LanguageModelV3StreamPart,
  LanguageModelV3Usage,
} from "@ai-sdk/provider";
import type { Finish, PartText, ServerEvent, Stream, Usage } from "wetink";

/**
 * What is shown behind the committed text for the moment. It replaces the one before, and is itself a
 * data part of a UI message: `writer.write(part.rawValue)`.
 */
export interface TentativePart {
  readonly type: "data-tentative";
  readonly data: { readonly tail: string; readonly verified: string };
  /** For display alone: never a part of the conversation. */
  readonly transient: true;
}

/** Turns events, which `stream` has taken, into parts, one after the other. */
export class Parts {
  readonly #stream: Stream;
  readonly #wantsTail: boolean;
  #part: { readonly id: string; readonly kind: string; readonly name: string | null } | null = null;
  /** The committed text of a tool call. */
  #input = "";
  #tail = "";

  constructor(stream: Stream, wantsTail: boolean) {
    this.#stream = stream;
    this.#wantsTail = wantsTail;
  }

  *of(event: ServerEvent): Generator<LanguageModelV3StreamPart> {
    switch (event.type) {
      case "open":
        if (this.#part === null) {
          yield { type: "response-metadata", id: event.stream ?? "", modelId: event.model };
          yield* this.#begin(event);
        }
        break;
      case "commit":
        yield* this.#delta(event.text);
        break;
      case "part":
        yield* this.#end();
        yield* this.#begin(event);
        break;
      case "finish":
        yield* this.#end();
        yield { type: "finish", usage: usageOf(event.usage), finishReason: reasonOf(event.reason), providerMetadata: metadataOf(event) };
        break;
      default: // changes the tail at most
    }
    yield* this.#tentative();
  }

  *#begin({ part, kind, name }: { part: number; kind: string; name: string | null }): Generator<LanguageModelV3StreamPart> {
    const id = String(part);
    this.#part = { id, kind, name };
    this.#input = "";
    if (kind === "tool_call") yield { type: "tool-input-start", id, toolName: name ?? "" };
    else yield { type: kind === "reasoning" ? "reasoning-start" : "text-start", id };
  }

  *#delta(delta: string): Generator<LanguageModelV3StreamPart> {
    const { id, kind } = this.#part ?? { id: "0", kind: "text" };
    if (kind === "tool_call") {
      this.#input += delta;
      yield { type: "tool-input-delta", id, delta };
    } else yield { type: kind === "reasoning" ? "reasoning-delta" : "text-delta", id, delta };
  }

  *#end(): Generator<LanguageModelV3StreamPart> {
    if (this.#part === null) return;
    const { id, kind, name } = this.#part;
    if (kind === "tool_call") {
      yield { type: "tool-input-end", id };
      yield { type: "tool-call", toolCallId: id, toolName: name ?? "", input: this.#input };
    } else yield { type: kind === "reasoning" ? "reasoning-end" : "text-end", id };
  }

  *#tentative(): Generator<LanguageModelV3StreamPart> {
    const { tail, verifiedTail: verified } = this.#stream.view;
    if (!this.#wantsTail || tail === this.#tail) return;
    this.#tail = tail;
    const rawValue: TentativePart = { type: "data-tentative", data: { tail, verified }, transient: true };
    yield { type: "raw", rawValue };
  }
}

export function contentOf({ index, kind, name, committed }: PartText): LanguageModelV3Content {
  switch (kind) {
    case "reasoning":
      return { type: "reasoning", text: committed };
    case "tool_call":
      return { type: "tool-call", toolCallId: String(index), toolName: name ?? "", input: committed };
    default:
      return { type: "text", text: committed };
  }
}

export function usageOf(usage: Usage): LanguageModelV3Usage {
  const { prompt_tokens: total, cached_prompt_tokens: cacheRead, completion_tokens } = usage;
  return {
    inputTokens: { total, cacheRead, noCache: total - cacheRead, cacheWrite: undefined },
    outputTokens: { total: completion_tokens, text: undefined, reasoning: undefined },
    raw: { ...usage },
  };
}

export function reasonOf(raw: string): LanguageModelV3FinishReason {
  const unified = REASONS.get(raw) ?? "other";
  return { unified, raw };
}

const REASONS: ReadonlyMap<string, LanguageModelV3FinishReason["unified"]> = new Map([
  ["stop", "stop"],
  ["length", "length"],
  ["tool_calls", "tool-calls"],
  ["content_filter", "content-filter"],
] as const);

/** What speculation did, under `providerMetadata.wetink`. */
export function metadataOf({ stats, digest }: Pick<Finish, "stats" | "digest">): {
  wetink: { stats: { [name: string]: number | null }; digest: string };
} {
  return { wetink: { stats: { ...stats }, digest } };
}
