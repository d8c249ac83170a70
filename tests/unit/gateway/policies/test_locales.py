from __future__ import annotations

import pytest

from gateway.policies.locales import is_locale


@pytest.mark.parametrize(
    "tag",
    [
        "en",
        "EN",
        "pt-BR",
        "pt_BR",
        "zh-Hant-TW",
        "es-419",
        "sl-rozaj",
        "fil",
        "th-u-nu-thai",
        "und",
    ],
)
def test_reader_may_name_a_locale_that_exists(tag: str) -> None:
    assert is_locale(tag)


@pytest.mark.parametrize(
    "tag", ["", "e", "xx", "qq-QQ", "english", "en-", "en--US", "de DE", "en-U", "en-US\n", "пт"]
)
def test_reader_may_not_name_a_locale_that_does_not_exist(tag: str) -> None:
    assert not is_locale(tag)
