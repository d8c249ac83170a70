/** The request on show, as code to start from. */

import type { Question } from "../run/recording.js";
import { requestOf } from "../run/live.js";

export type Language = "curl" | "javascript" | "python";

export function snippet(language: Language, question: Question, origin: string): string {
  const request = requestOf(question, "retract");
  const json = JSON.stringify(request, null, 2);
  switch (language) {
    case "curl":
      return [
        `curl -N ${origin}/v1/streams \\`,
        "  -H 'Accept: text/event-stream' -H 'Content-Type: application/json' \\",
        `  -d '${JSON.stringify(request).replaceAll("'", String.raw`'\''`)}'`,
      ].join("\n");
    case "javascript":
      return [
        `import { stream } from "${origin}/wetink.js";`,
        "",
        `const answer = stream("${origin}", ${json});`,
        "answer.subscribe(({ committed, tail }) => {",
        "  console.log(committed, tail); // dry ink, wet ink",
        "});",
        "const { text, usage } = await answer.finished;",
      ].join("\n");
    case "python":
      return [
        "import asyncio",
        "",
        "import wetink",
        "",
        "",
        "async def main() -> None:",
        `    request = ${python(request, 1)}`,
        `    async with wetink.stream("${origin}", **request) as answer:`,
        "        async for text in answer.committed():",
        '            print(text, end="", flush=True)  # never taken back',
        "",
        "",
        "asyncio.run(main())",
      ].join("\n");
  }
}

/** A JSON value as a Python literal. */
function python(value: unknown, depth: number): string {
  const pad = "    ".repeat(depth + 1);
  const close = "    ".repeat(depth);
  if (value === null) return "None";
  if (typeof value === "boolean") return value ? "True" : "False";
  if (Array.isArray(value)) {
    return `[${value.map((each) => python(each, depth)).join(", ")}]`;
  }
  if (typeof value === "object") {
    const rows = Object.entries(value).map(
      ([key, each]) => `${pad}${JSON.stringify(key)}: ${python(each, depth + 1)},\n`,
    );
    return `{\n${rows.join("")}${close}}`;
  }
  return JSON.stringify(value);
}
