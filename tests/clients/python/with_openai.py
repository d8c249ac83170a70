"""openai, both its client classes: whole, streamed, choices, logprobs, models, errors."""

import asyncio
import json
import sys

import openai

BASE, MODEL, PROMPT, TOKENS = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
MESSAGES = [{"role": "user", "content": PROMPT}]
ASKED = {"model": MODEL, "messages": MESSAGES, "temperature": 0, "max_tokens": TOKENS}

client = openai.OpenAI(base_url=BASE, api_key="none", max_retries=0)
whole = client.chat.completions.create(**ASKED)
chunks = list(
    client.chat.completions.create(**ASKED, stream=True, stream_options={"include_usage": True})
)
choices = client.chat.completions.create(**ASKED | {"temperature": 1}, n=3, seed=4)
scored = client.chat.completions.create(**ASKED, logprobs=True)
plain = client.completions.create(model=MODEL, prompt=["Once", "Twice"], max_tokens=8, logprobs=0)
with client.chat.completions.stream(**ASKED) as helper:
    for _ in helper:
        pass
    helped = helper.current_completion_snapshot
try:
    client.models.retrieve("nope")
except openai.NotFoundError as error:
    missing = error.code
try:
    client.chat.completions.create(**ASKED, extra_body={"banana": 1})
except openai.BadRequestError as error:
    unknown = error.param
try:
    client.embeddings.create(model=MODEL, input="x")
except openai.NotFoundError as error:
    embeddings = error.code


async def asked_asynchronously() -> str:
    async with openai.AsyncOpenAI(base_url=BASE, api_key="none") as other:
        answer = await other.chat.completions.create(**ASKED)
        return answer.choices[0].message.content


json.dump(
    {
        "texts": [
            whole.choices[0].message.content,
            "".join(c.choices[0].delta.content or "" for c in chunks if c.choices),
            scored.choices[0].message.content,
            "".join(each.token for each in scored.choices[0].logprobs.content),
            helped.choices[0].message.content,
            asyncio.run(asked_asynchronously()),
        ],
        "tokens": [whole.usage.completion_tokens, chunks[-1].usage.completion_tokens],
        "choices": [choice.message.content for choice in choices.choices],
        "prompts": [choice.index for choice in plain.choices],
        "models": [model.id for model in client.models.list()],
        "model": client.models.retrieve(MODEL).id,
        "errors": [missing, unknown, embeddings],
    },
    sys.stdout,
)
