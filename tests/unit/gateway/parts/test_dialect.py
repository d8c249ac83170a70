from __future__ import annotations

import pytest

from gateway.parts import Dialect, dialect_of
from gateway.parts.dialect import HERMES, LLAMA, MISTRAL

PLAIN = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>{% endfor %}"
QWEN = (
    "{%- if tools %}<tools>{% for tool in tools %}{{ tool | tojson }}{% endfor %}</tools> "
    '<tool_call>\n{"name": <function-name>, "arguments": <args>}\n</tool_call>{% endif %}'
)


@pytest.mark.parametrize(
    ("template", "opening", "dialect"),
    [
        (None, "", Dialect()),
        (PLAIN, "<|im_start|>assistant\n", Dialect()),
        (QWEN, "", Dialect(calls=HERMES, knows_tools=True)),
        (QWEN + "</think>", "", Dialect(knows_tools=True, thinks="marked")),
        (QWEN + "</think>", "assistant\n<think>\n", Dialect(knows_tools=True, thinks="at once")),
        (
            "{% if tools is not none %}{% endif %}[TOOL_CALLS]",
            "",
            Dialect(calls=MISTRAL, knows_tools=True),
        ),
        (
            (
                '{% if tools %}{"name": function name, "parameters": dictionary}{% endif %}'
                """{{- '"parameters": ' }}"""
            ),
            "",
            Dialect(calls=LLAMA, knows_tools=True),
        ),
    ],
)
def test_dialect_is_told_by_the_chat_template(
    template: str | None, opening: str, dialect: Dialect
) -> None:
    assert dialect_of(template, opening) == dialect
