"""instructor: its default mode, a function that has to be called."""

import json
import sys

import instructor
import openai
from pydantic import BaseModel, Field

BASE, MODEL, PROMPT = sys.argv[1:4]


class Ship(BaseModel):
    name: str = Field(max_length=20)
    masts: int = Field(ge=1, le=5)
    ports: list[str] = Field(max_length=2)


client = instructor.from_openai(openai.OpenAI(base_url=BASE, api_key="none"))
ship = client.chat.completions.create(
    model=MODEL,
    messages=[{"role": "user", "content": PROMPT}],
    temperature=0,
    max_tokens=300,
    response_model=Ship,
    max_retries=0,
)
json.dump({"names": ["Ship"], "objects": [ship.model_dump()]}, sys.stdout)
