"""OpenAI's Agents SDK over chat completions: run, and run streamed."""

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

BASE, MODEL, PROMPT, TOKENS = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])

set_tracing_disabled(True)


async def main() -> None:
    client = AsyncOpenAI(base_url=BASE, api_key="none")
    agent = Agent(
        name="keeper",
        model=OpenAIChatCompletionsModel(model=MODEL, openai_client=client),
        model_settings=ModelSettings(temperature=0, max_tokens=TOKENS, include_usage=True),
    )
    whole = await Runner.run(agent, PROMPT)
    streamed = Runner.run_streamed(agent, PROMPT)
    async for _ in streamed.stream_events():
        pass
    json.dump({"texts": [whole.final_output, streamed.final_output]}, sys.stdout)


asyncio.run(main())
