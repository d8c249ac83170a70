"""langchain-openai: a tool that has to be called, and structured output by function calling."""

import json
import sys

from langchain_openai import ChatOpenAI
from pydantic import BaseModel, Field

BASE, MODEL, PROMPT = sys.argv[1:4]


class Ship(BaseModel):
    """A ship."""

    name: str = Field(max_length=20)
    masts: int = Field(ge=1, le=5)
    ports: list[str] = Field(max_length=2)


chat = ChatOpenAI(base_url=BASE, api_key="none", model=MODEL, temperature=0, max_tokens=300)
# The model may make several calls where that is not ruled out.
bound = chat.bind_tools([Ship], tool_choice="required", parallel_tool_calls=False)
called = bound.invoke(PROMPT)
(call,) = called.tool_calls
*_, streamed = chat.with_structured_output(Ship, method="function_calling").stream(PROMPT)
json.dump({"names": [call["name"]], "objects": [call["args"], streamed.model_dump()]}, sys.stdout)
