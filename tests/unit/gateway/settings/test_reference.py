from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from gateway.config import GatewayConfig
from gateway.config.upstreams import UpstreamConfig
from gateway.settings.page import page
from gateway.settings.reference import Setting, sections, toml

SETTINGS = [setting for section in sections() for setting in section.settings]
PAGE = Path(__file__).parents[4] / "docs" / "configuration.md"


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.key)
def test_setting_has_a_text_that_says_what_it_means(setting: Setting) -> None:
    assert len(setting.text.split()) >= 3
    assert setting.text.endswith((".", ")"))


@pytest.mark.parametrize("section", sections(), ids=lambda section: section.name)
def test_section_says_what_it_is_about(section: object) -> None:
    assert str(getattr(section, "text", "")).endswith(".")


def test_every_key_that_is_read_is_explained() -> None:
    read = [
        (section, name)
        for section in GatewayConfig.__struct_fields__
        for name in (
            UpstreamConfig if section == "upstreams" else getattr(GatewayConfig(), section)
        ).__struct_fields__
    ]
    assert [(setting.section, setting.name) for setting in SETTINGS] == read


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.key)
def test_variable_that_is_named_is_the_one_that_is_read(setting: Setting) -> None:
    if setting.in_environment and setting.default is not None and setting.section != "engine":
        default = setting.default
        is_list = isinstance(default, list | tuple)
        text = ",".join(map(str, default)) if is_list else str(default).lower()  # type: ignore[arg-type]
        assert GatewayConfig.load(env={setting.variable: text}) == GatewayConfig()


def test_reference_takes_meanings_and_defaults_of_the_engine_from_the_engine() -> None:
    [length] = [setting for setting in SETTINGS if setting.key == "engine.draft_length"]
    assert (length.type, length.default) == ("whole number, 0 … 16", 8)
    [delay] = [setting for setting in SETTINGS if setting.key == "engine.verify_delay_ms"]
    assert delay.unit == "milliseconds"


def test_page_in_the_docs_is_fresh() -> None:
    assert PAGE.read_text() == page(), (
        "run: python -m gateway.settings.page > docs/configuration.md"
    )


@pytest.mark.parametrize(
    "value",
    [True, 0, 1.5, 'say "hi"\n', ["a", "b"], [], {}, {"a b": {"kind": "chunk", "n": [1]}}],
)
def test_values_are_written_as_toml_reads_them(value: object) -> None:
    assert tomllib.loads(f"x = {toml(value)}") == {"x": value}
