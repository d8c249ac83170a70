/**
 * A Wetink gateway as a provider of the AI SDK: committed text as text deltas, so that nothing the SDK
 * was told is ever taken back.
 */

import {
  APICallError,
  type LanguageModelV3,
  type LanguageModelV3CallOptions,
  type LanguageModelV3GenerateResult,
  type LanguageModelV3StreamPart,
  type LanguageModelV3StreamResult,
} from "@ai-sdk/provider";
import { type GenerationRequest, type HttpOptions, type Stream, stream, WetinkError } from "wetink";

import { contentOf, Parts, reasonOf, usageOf } from "./parts.js";
import { requestOf } from "./prompt.js";

export type { TentativePart } from "./parts.js";

export interface WetinkSettings extends HttpOptions {
  /** The gateway's address. */
  readonly url: string;
}

/** `wetink("model")`, or `wetink()` for the gateway's default model. */
export function createWetink(settings: WetinkSettings): (model?: string) => LanguageModelV3 {
  return (model) => new WetinkModel(settings, model);
}

class WetinkModel implements LanguageModelV3 {
  readonly specificationVersion = "v3";
  readonly provider = "wetink";
  readonly modelId: string;
  /** None: a model reads text. */
  readonly supportedUrls = {};
  readonly #settings: WetinkSettings;
  readonly #model: string | undefined;

  constructor(settings: WetinkSettings, model: string | undefined) {
    this.#settings = settings;
    this.#model = model;
    this.modelId = model ?? "default";
  }

  async doGenerate(options: LanguageModelV3CallOptions): Promise<LanguageModelV3GenerateResult> {
    const { request, warnings } = requestOf(this.#model, options);
    const reading = this.#start(request, options);
    const { parts, usage, reason } = await reading.finished.catch((error: unknown) => {
      throw asCallError(error, this.#settings.url, request);
    });
    return {
      content: parts.map(contentOf),
      finishReason: reasonOf(reason),
      usage: usageOf(usage),
      response: { ...(reading.id !== null && { id: reading.id }) },
      warnings,
    };
  }

  /** Refusals reject, so that the SDK's own retries see them; a failure later is an `error` part. */
  async doStream(options: LanguageModelV3CallOptions): Promise<LanguageModelV3StreamResult> {
    const { request, warnings } = requestOf(this.#model, options);
    const reading = this.#start(request, options);
    const events = reading[Symbol.asyncIterator]();
    const parts = new Parts(reading, options.includeRawChunks ?? false);
    let next = await events.next().catch((error: unknown) => {
      throw asCallError(error, this.#settings.url, request);
    });
    const body = new ReadableStream<LanguageModelV3StreamPart>({
      start: (to) => to.enqueue({ type: "stream-start", warnings }),
      pull: async (to) => {
        try {
          // Not every event is worth a part, and a pull that brings none is not followed by another.
          for (let count = 0; count === 0; ) {
            if (next.done === true) return to.close();
            for (const part of parts.of(next.value)) {
              to.enqueue(part);
              count += 1;
            }
            next = await events.next();
          }
        } catch (error) {
          to.enqueue({ type: "error", error: asCallError(error, this.#settings.url, request) });
          to.close();
        }
      },
      cancel: () => reading.cancel(),
    });
    return { stream: body, request: { body: request } };
  }

  #start(request: GenerationRequest, { abortSignal, headers }: LanguageModelV3CallOptions): Stream {
    const { url, ...http } = this.#settings;
    const given = Object.entries({ ...http.headers, ...headers });
    const sent = given.filter((pair): pair is [string, string] => pair[1] !== undefined);
    return stream(url, request, {
      ...http,
      headers: Object.fromEntries(sent),
      ...(abortSignal !== undefined && { signal: abortSignal }),
    });
  }
}

/** What an SDK knows how to retry. What the caller aborted stays what it was. */
function asCallError(error: unknown, url: string, requestBodyValues: unknown): unknown {
  if (!(error instanceof WetinkError)) return error;
  if (error.code === "aborted") return error.cause;
  const { message, status, retryable: isRetryable, code, field } = error;
  return new APICallError({
    message,
    url,
    requestBodyValues,
    isRetryable,
    cause: error,
    data: { code, field },
    ...(status !== null && { statusCode: status }),
  });
}
