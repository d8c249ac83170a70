"""litellm: whole and streamed; its errors are OpenAI's classes."""

import json
import sys

import litellm

BASE, MODEL, PROMPT, TOKENS = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
ASKED = {
    "model": f"openai/{MODEL}",
    "api_base": BASE,
    "api_key": "none",
    "messages": [{"role": "user", "content": PROMPT}],
    "temperature": 0,
    "max_tokens": TOKENS,
}

whole = litellm.completion(**ASKED)
chunks = list(litellm.completion(**ASKED, stream=True, stream_options={"include_usage": True}))
try:
    litellm.completion(**ASKED | {"model": "openai/nope"}, num_retries=0)
except litellm.NotFoundError as error:
    missing = error.status_code
json.dump(
    {
        "texts": [
            whole.choices[0].message.content,
            "".join(c.choices[0].delta.content or "" for c in chunks if c.choices),
        ],
        "tokens": [whole.usage.completion_tokens],
        "errors": [missing],
    },
    sys.stdout,
)
