// openai for Node: whole, streamed, choices, models, errors; and which headers it sends, as a page
// would have to be allowed them.
import OpenAI from "openai";

const [base, model, prompt, tokens] = process.argv.slice(2);
const headers = new Set();
const recording = (url, init) => {
  for (const name of new Headers(init.headers).keys()) headers.add(name);
  return fetch(url, init);
};
const client = new OpenAI({ baseURL: base, apiKey: "none", maxRetries: 0, fetch: recording });
const asked = {
  model,
  messages: [{ role: "user", content: prompt }],
  temperature: 0,
  max_tokens: Number(tokens),
};

const whole = await client.chat.completions.create(asked);
let streamed = "";
for await (const chunk of await client.chat.completions.create({ ...asked, stream: true })) {
  streamed += chunk.choices[0]?.delta?.content ?? "";
}
const runner = client.chat.completions.stream(asked);
const helped = await runner.finalContent();
const choices = await client.chat.completions.create({ ...asked, temperature: 1, n: 2, seed: 4 });
const missing = await client.models.retrieve("nope").catch((error) => error.code);
console.log(
  JSON.stringify({
    texts: [whole.choices[0].message.content, streamed, helped],
    tokens: [whole.usage.completion_tokens],
    choices: choices.choices.map((choice) => choice.message.content),
    models: (await client.models.list()).data.map((each) => each.id),
    errors: [missing],
    headers: [...headers],
  }),
);
