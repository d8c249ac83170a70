/** What the AI SDK asks for, as a Wetink request. */

import {
  type LanguageModelV3CallOptions,
  type LanguageModelV3Message,
  type SharedV3Warning,
  UnsupportedFunctionalityError,
} from "@ai-sdk/provider";
import type { GenerationRequest, Message } from "wetink";

/** `providerOptions.wetink` may hold every other field of a request: `policy`, `draft`, `min_p`, … */
export function requestOf(
  model: string | undefined,
  options: LanguageModelV3CallOptions,
): { request: GenerationRequest; warnings: SharedV3Warning[] } {
  const fields = {
    model,
    max_tokens: options.maxOutputTokens,
    temperature: options.temperature,
    top_p: options.topP,
    top_k: options.topK,
    presence_penalty: options.presencePenalty,
    frequency_penalty: options.frequencyPenalty,
    stop: options.stopSequences,
    seed: options.seed,
    // Tentative text is only asked for where somebody looks at it.
    policy: options.includeRawChunks === true ? "retract" : "hold",
    ...options.providerOptions?.["wetink"],
  };
  const given = Object.entries(fields).filter(([, value]) => value !== undefined);
  const messages = options.prompt.flatMap(messagesOf);
  return {
    request: { ...(Object.fromEntries(given) as object), messages },
    warnings: warningsOf(options),
  };
}

function warningsOf({ tools, responseFormat }: LanguageModelV3CallOptions): SharedV3Warning[] {
  const features: string[] = [];
  if (tools !== undefined && tools.length > 0) features.push("tools");
  if (responseFormat?.type === "json") features.push("responseFormat");
  return features.map((feature) => ({ type: "unsupported", feature }));
}

function messagesOf(message: LanguageModelV3Message): Message[] {
  switch (message.role) {
    case "system":
      return [{ role: "system", content: message.content }];
    case "user":
    case "assistant":
      return [{ role: message.role, content: message.content.map(textOf).join("") }];
    case "tool":
      return message.content.map((part) => ({ role: "tool", content: textOf(part) }));
  }
}

type Content = Exclude<LanguageModelV3Message, { role: "system" }>["content"][number];

function textOf(part: Content): string {
  switch (part.type) {
    case "text":
      return part.text;
    case "reasoning":
      return ""; // a model is not shown its earlier thoughts
    case "tool-result":
      return "value" in part.output && typeof part.output.value === "string"
        ? part.output.value
        : JSON.stringify(part.output);
    default:
      throw new UnsupportedFunctionalityError({ functionality: `${part.type} in a message` });
  }
}
