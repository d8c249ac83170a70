from __future__ import annotations

from tests.server.openai.page import PAGE, with_tables


def test_tables_say_what_requests_are_decoded_by() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert page == with_tables(page), "run: python -m tests.server.openai.page"
