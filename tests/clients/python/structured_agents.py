"""OpenAI's Agents SDK: an agent whose output is of a type."""

import asyncio
import json
import sys

from agents import (
    Agent,
    ModelSettings,
    OpenAIChatCompletionsModel,
    Runner,
    set_tracing_disabled,
)
from openai import AsyncOpenAI
from pydantic import BaseModel, Field

BASE, MODEL, PROMPT = sys.argv[1:4]


class Ship(BaseModel):
    name: str = Field(max_length=20)
    masts: int = Field(ge=1, le=5)
    ports: list[str] = Field(max_length=2)


set_tracing_disabled(True)
agent = Agent(
    name="keeper",
    model=OpenAIChatCompletionsModel(
        model=MODEL, openai_client=AsyncOpenAI(base_url=BASE, api_key="none")
    ),
    model_settings=ModelSettings(temperature=0, max_tokens=300),
    output_type=Ship,
)
ship = asyncio.run(Runner.run(agent, PROMPT)).final_output
json.dump({"objects": [ship.model_dump()]}, sys.stdout)
