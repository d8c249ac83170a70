// OpenAI's library for JavaScript: a response of a schema, read as a stream and whole.
import OpenAI from "openai";

const [base, model, prompt] = process.argv.slice(2);
const client = new OpenAI({ baseURL: base, apiKey: "none" });
const schema = {
  type: "object",
  properties: {
    name: { type: "string", maxLength: 20 },
    masts: { type: "integer", minimum: 1, maximum: 5 },
    ports: { type: "array", items: { type: "string", maxLength: 12 }, maxItems: 2 },
  },
  required: ["name", "masts", "ports"],
  additionalProperties: false,
};
const asked = {
  model,
  input: prompt,
  temperature: 0,
  max_output_tokens: 300,
  text: { format: { type: "json_schema", name: "ship", schema, strict: true } },
};
const whole = await client.responses.create(asked);
const stream = client.responses.stream({ ...asked, previous_response_id: whole.id });
let said = "";
stream.on("response.output_text.delta", (event) => (said += event.delta));
const last = await stream.finalResponse();
if (last.output_text !== said) throw new Error(`${last.output_text} is not ${said}`);
console.log(JSON.stringify({ objects: [JSON.parse(whole.output_text), JSON.parse(said)] }));
