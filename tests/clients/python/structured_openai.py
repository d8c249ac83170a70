"""openai: the parse helper with a pydantic class, streamed too."""

import json
import sys

import openai
from pydantic import BaseModel, Field

BASE, MODEL, PROMPT = sys.argv[1:4]


class Ship(BaseModel):
    name: str = Field(max_length=20)
    masts: int = Field(ge=1, le=5)
    ports: list[str] = Field(max_length=2)


client = openai.OpenAI(base_url=BASE, api_key="none", max_retries=0)
asked = {
    "model": MODEL,
    "messages": [{"role": "user", "content": PROMPT}],
    "temperature": 0,
    "max_tokens": 300,
    "response_format": Ship,
}
whole = client.chat.completions.parse(**asked).choices[0].message.parsed
with client.chat.completions.stream(**asked) as helper:
    streamed = helper.get_final_completion().choices[0].message.parsed
json.dump({"objects": [whole.model_dump(), streamed.model_dump()]}, sys.stdout)
