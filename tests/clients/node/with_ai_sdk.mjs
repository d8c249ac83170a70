// The AI SDK with @ai-sdk/openai-compatible: generateText, streamText.
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateText, streamText } from "ai";

const [base, name, prompt, tokens] = process.argv.slice(2);
const provider = createOpenAICompatible({ name: "here", baseURL: base, includeUsage: true });
const asked = { model: provider(name), prompt, temperature: 0, maxOutputTokens: Number(tokens) };

const whole = await generateText(asked);
const streaming = streamText(asked);
let streamed = "";
for await (const piece of streaming.textStream) streamed += piece;
const usage = await streaming.usage;
console.log(
  JSON.stringify({
    texts: [whole.text, streamed],
    tokens: [whole.usage.outputTokens, usage.outputTokens],
  }),
);
