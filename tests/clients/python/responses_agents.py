"""OpenAI's Agents SDK with the model it takes by itself (Responses), which has to use its tool."""

import asyncio
import json
import sys
from typing import Annotated

from agents import (
    Agent,
    ModelSettings,
    Runner,
    function_tool,
    set_default_openai_client,
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
set_default_openai_client(AsyncOpenAI(base_url=BASE, api_key="none"), use_for_tracing=False)
settings = ModelSettings(temperature=0, max_tokens=300, tool_choice="Ship")
agent = Agent(
    name="keeper",
    model=MODEL,
    model_settings=settings,
    tools=[Ship],
    tool_use_behavior="stop_on_first_tool",
)
whole = asyncio.run(Runner.run(agent, PROMPT))
assert whole.final_output == "launched"
json.dump({"names": ["Ship"], "objects": launched}, sys.stdout)
