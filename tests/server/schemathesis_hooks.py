"""What Schemathesis cannot take from the document; loaded by tests/server/test_documented.py."""

# Schemathesis does not say what its decorators return.
# pyright: reportUnknownMemberType=false, reportUntypedFunctionDecorator=false

from __future__ import annotations

from typing import Any

import schemathesis

LOCALE_LENGTHS = range(2, 36)


@schemathesis.hook("before_call")
def know_the_language(_context: Any, case: schemathesis.Case[Any], _kwargs: Any) -> None:
    """The schema of a locale says how long it is; that its language is known cannot be said."""
    match case.body:
        case {"policy": {"locale": str(locale)} as policy} if len(locale) in LOCALE_LENGTHS:
            case.body["policy"] = {**policy, "locale": "en"}
        case _:
            pass
