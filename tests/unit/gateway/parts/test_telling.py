from __future__ import annotations

from gateway.parts import told
from protocol.requests import Call, Message, Tool

TIDE = Tool(name="tide", description="When it is high.")


def test_model_is_told_of_tools_in_its_system_message() -> None:
    user = Message("user", "hi")
    first, second = told([TIDE], [user], required=False)
    assert (first.role, second) == ("system", user)
    assert '"name":"tide"' in first.content
    joined, _ = told([TIDE], [Message("system", "Be brief."), user], required=True)
    assert joined.content.startswith("Be brief.\n\nYou can call")


def test_earlier_calls_are_told_as_text() -> None:
    asked = Message("assistant", "Look:", [Call("tide", '{"at": "noon"}', "c1")])
    answered = Message("tool", "high", tool_call_id="c1")
    call = '<tool_call>\n{"name": "tide", "arguments": {"at": "noon"}}\n</tool_call>'
    said = told([], [asked, answered], required=False)
    assert said == [Message("assistant", f"Look:\n{call}"), Message("tool", "high")]
