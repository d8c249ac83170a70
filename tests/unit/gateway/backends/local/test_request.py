from __future__ import annotations

import json
from typing import Any

import pytest

from engine import frames
from gateway.backends.local.request import start_frame
from gateway.parts import Dialect
from protocol.errors import RequestError
from protocol.requests import GenerationRequest, JsonSchema, Message, Regex, Tool

KNOWING = Dialect(knows_tools=True)
TIDE = Tool(name="tide", description="When.", parameters={"type": "object"})


def started(dialect: Dialect = KNOWING, tenant: str = "", **fields: Any) -> frames.Start:
    request = GenerationRequest(messages=[Message("user", "x")], **fields)
    return start_frame("s", request, dialect, want_drafts=False, tenant=tenant)


def test_engine_is_told_whose_caches_a_stream_may_use() -> None:
    assert started(tenant="acct-7").salt == b"acct-7"


def test_template_that_knows_tools_is_given_them() -> None:
    start = started(tools=[TIDE])
    assert start.tools == [frames.Tool("tide", "When.", {"type": "object"})]
    assert start.messages == [frames.ChatMessage("user", "x")]
    assert start.sampling.grammar is None


def test_template_that_knows_no_tools_is_given_their_description_as_text() -> None:
    start = started(Dialect(), tools=[TIDE])
    assert start.tools == []
    assert start.messages is not None
    assert '"name":"tide"' in start.messages[0].content


def test_tools_that_may_not_be_called_are_not_told() -> None:
    assert started(tools=[TIDE], tool_choice="none") == started()


def test_required_call_is_constrained_to_the_form_of_the_family() -> None:
    grammar = started(tools=[TIDE], tool_choice="required").sampling.grammar
    assert grammar is not None
    form = json.loads(grammar.text)
    assert (grammar.kind, form["begin"]) == ("tool_call", "<tool_call>\n")
    assert (form["between"] is not None, form["otherwise"]) == (True, None)
    one = started(tools=[TIDE], tool_choice="required", parallel_tool_calls=False)
    assert one.sampling.grammar is not None
    assert json.loads(one.sampling.grammar.text)["between"] is None


def test_answer_is_a_call_or_follows_its_schema() -> None:
    grammar = started(tools=[TIDE], grammar=JsonSchema(schema={"type": "null"})).sampling.grammar
    assert grammar is not None
    assert json.loads(grammar.text)["otherwise"] == {"type": "null"}


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tools": [TIDE], "tool_choice": "required", "stop": ["x"]}, "stop"),
        ({"tools": [TIDE], "grammar": Regex(pattern="a")}, "grammar"),
    ],
)
def test_what_does_not_go_together_with_tools_is_refused(
    fields: dict[str, Any], param: str
) -> None:
    with pytest.raises(RequestError) as caught:
        started(**fields)
    assert caught.value.param == param


def test_alternatives_are_refused_where_logprobs_are_not_told() -> None:
    with pytest.raises(RequestError) as caught:
        started(top_logprobs=3)
    assert caught.value.param == "top_logprobs"
    sampling = started(top_logprobs=3, include=["logprobs"]).sampling
    assert (sampling.logprobs, sampling.top_logprobs) == (True, 3)


def test_tools_without_messages_are_refused() -> None:
    request = GenerationRequest(prompt="x", tools=[TIDE])
    with pytest.raises(RequestError) as caught:
        start_frame("s", request, KNOWING, want_drafts=False, tenant="")
    assert caught.value.param == "tools"
