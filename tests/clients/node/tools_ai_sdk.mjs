// The AI SDK with @ai-sdk/openai-compatible: a tool that has to be called, whole and streamed.
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateText, streamText, tool } from "ai";
import { z } from "zod";

const [base, name, prompt] = process.argv.slice(2);
const provider = createOpenAICompatible({ name: "here", baseURL: base });
const inputSchema = z.object({
  name: z.string().max(20),
  masts: z.number().int().min(1).max(5),
  ports: z.array(z.string()).max(2),
});
const asked = {
  model: provider(name),
  prompt,
  tools: { Ship: tool({ description: "Launch a ship.", inputSchema }) },
  toolChoice: "required",
  temperature: 0,
  maxOutputTokens: 300,
};

const whole = await generateText(asked);
const streaming = streamText(asked);
await streaming.consumeStream();
const calls = [...whole.toolCalls, ...(await streaming.toolCalls)];
console.log(
  JSON.stringify({
    names: calls.map((call) => call.toolName),
    objects: calls.map((call) => call.input),
  }),
);
