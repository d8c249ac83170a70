"""langchain-openai: invoke, stream, batch, and its asynchronous side."""

import asyncio
import json
import sys

from langchain_openai import ChatOpenAI

BASE, MODEL, PROMPT, TOKENS = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])

chat = ChatOpenAI(
    base_url=BASE,
    api_key="none",
    model=MODEL,
    temperature=0,
    max_tokens=TOKENS,
    stream_usage=True,
)
whole = chat.invoke(PROMPT)
streamed = list(chat.stream(PROMPT))
scored = chat.bind(logprobs=True).invoke(PROMPT)
json.dump(
    {
        "texts": [
            whole.content,
            "".join(chunk.content for chunk in streamed),
            *(message.content for message in chat.batch([PROMPT, PROMPT])),
            asyncio.run(chat.ainvoke(PROMPT)).content,
            "".join(each["token"] for each in scored.response_metadata["logprobs"]["content"]),
        ],
        "tokens": [whole.usage_metadata["output_tokens"]],
    },
    sys.stdout,
)
