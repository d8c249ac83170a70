// openai for Node: the parse helper with a zod schema.
import OpenAI from "openai";
import { zodResponseFormat } from "openai/helpers/zod";
import { z } from "zod";

const [base, model, prompt] = process.argv.slice(2);
const client = new OpenAI({ baseURL: base, apiKey: "none", maxRetries: 0 });
const schema = z.object({
  name: z.string().max(20),
  masts: z.number().int().min(1).max(5),
  ports: z.array(z.string()).max(2),
});
const answer = await client.chat.completions.parse({
  model,
  messages: [{ role: "user", content: prompt }],
  temperature: 0,
  max_tokens: 300,
  response_format: zodResponseFormat(schema, "ship"),
});
console.log(JSON.stringify({ objects: [answer.choices[0].message.parsed] }));
