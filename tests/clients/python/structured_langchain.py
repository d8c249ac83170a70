"""langchain-openai: with_structured_output, by schema and in JSON mode."""

import json
import sys

from langchain_openai import ChatOpenAI
from pydantic import BaseModel, Field

BASE, MODEL, PROMPT = sys.argv[1:4]


class Ship(BaseModel):
    name: str = Field(max_length=20)
    masts: int = Field(ge=1, le=5)
    ports: list[str] = Field(max_length=2)


chat = ChatOpenAI(base_url=BASE, api_key="none", model=MODEL, temperature=0, max_tokens=300)
by_class = chat.with_structured_output(Ship, method="json_schema").invoke(PROMPT)
*_, streamed = chat.with_structured_output(Ship, method="json_schema").stream(PROMPT)
json.dump({"objects": [by_class.model_dump(), streamed.model_dump()]}, sys.stdout)
