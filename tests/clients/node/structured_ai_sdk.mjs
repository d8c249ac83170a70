// The AI SDK with @ai-sdk/openai-compatible: generateObject, streamObject.
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateObject, streamObject } from "ai";
import { z } from "zod";

const [base, name, prompt] = process.argv.slice(2);
const provider = createOpenAICompatible({
  name: "here",
  baseURL: base,
  supportsStructuredOutputs: true,
});
const schema = z.object({
  name: z.string().max(20),
  masts: z.number().int().min(1).max(5),
  ports: z.array(z.string()).max(2),
});
const asked = { model: provider(name), prompt, schema, temperature: 0, maxOutputTokens: 300 };

const whole = await generateObject(asked);
const streaming = streamObject(asked);
let partial = 0;
for await (const _ of streaming.partialObjectStream) partial += 1;
console.log(JSON.stringify({ objects: [whole.object, await streaming.object], partial }));
