"""litellm: response_format with a pydantic class."""

import json
import sys

import litellm
from pydantic import BaseModel, Field

BASE, MODEL, PROMPT = sys.argv[1:4]


class Ship(BaseModel):
    name: str = Field(max_length=20)
    masts: int = Field(ge=1, le=5)
    ports: list[str] = Field(max_length=2)


answer = litellm.completion(
    model=f"openai/{MODEL}",
    api_base=BASE,
    api_key="none",
    messages=[{"role": "user", "content": PROMPT}],
    temperature=0,
    max_tokens=300,
    response_format=Ship,
)
ship = Ship.model_validate_json(answer.choices[0].message.content)
json.dump({"objects": [ship.model_dump()]}, sys.stdout)
