"""OpenAI's Agents SDK: an agent that has to use its tool, and stops with what that said."""

import asyncio
import json
import sys
from typing import Annotated

from agents import (
    Agent,
    ModelSettings,
    OpenAIChatCompletionsModel,
    Runner,
    function_tool,
    set_tracing_disabled,
)
from openai import AsyncOpenAI
from pydantic import Field

BASE, MODEL, PROMPT = sys.argv[1:4]
launched = []


@function_tool
def Ship(
    name: Annotated[str, Field(max_length=20)],
    masts: Annotated[int, Field(ge=1, le=5)],
    ports: Annotated[list[str], Field(max_length=2)],
) -> str:
    """Launch a ship."""
    launched.append({"name": name, "masts": masts, "ports": ports})
    return "launched"


set_tracing_disabled(True)
agent = Agent(
    name="keeper",
    model=OpenAIChatCompletionsModel(
        model=MODEL, openai_client=AsyncOpenAI(base_url=BASE, api_key="none")
    ),
    model_settings=ModelSettings(temperature=0, max_tokens=300, tool_choice="required"),
    tools=[Ship],
    tool_use_behavior="stop_on_first_tool",
)
whole = asyncio.run(Runner.run(agent, PROMPT))
assert whole.final_output == "launched"
json.dump({"names": ["Ship"], "objects": launched}, sys.stdout)
