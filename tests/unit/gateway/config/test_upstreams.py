from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from gateway.cli import main
from gateway.config import GatewayConfig
from gateway.errors import ConfigError
from gateway.settings.command import problems_of, shown

if TYPE_CHECKING:
    from pathlib import Path

TOML = """
[[upstreams]]
name = "big"
urls = ["http://gpu1:8000/v1/", "http://gpu2:8000"]
models = { chat = "llama-3.3-70b" }
key_variable = "BIG_KEY"
priority = 1

[[upstreams]]
url = "https://api.example/v1"
"""


def test_upstreams_are_read_in_order(tmp_path: Path) -> None:
    file = tmp_path / "wetink.toml"
    file.write_text(TOML)
    config = GatewayConfig.load(file, env={})
    big, hosted = config.upstreams
    assert big.addresses == ["http://gpu1:8000/v1", "http://gpu2:8000/v1"]
    assert (big.title, hosted.title) == ("big", "api.example")
    assert config.own_backend == "none"


@pytest.mark.parametrize(
    ("upstream", "named"),
    [
        ({}, "upstreams[0].url"),
        ({"url": "http://a", "urls": ["http://b"]}, "upstreams[0].url"),
        ({"url": "gpu1:8000"}, "upstreams[0].url"),
        ({"url": "ftp://a"}, "upstreams[0].url"),
        ({"url": "http://"}, "upstreams[0].url"),
        ({"url": "http://a/v1?key=b"}, "upstreams[0].url"),
        ({"url": "http://a:99999999"}, "upstreams[0].url"),
        ({"urls": ["http://a", "b"]}, "upstreams[0].urls"),
        ({"url": "http://a", "name": "two words"}, "upstreams[0].name"),
        ({"url": "http://a", "models": []}, "upstreams[0].models"),
        ({"url": "http://a", "key_variable": "A", "key_file": "b"}, "upstreams[0].key_variable"),
        ({"url": "http://a", "weight": 0}, "upstreams[0].weight"),
        ({"url": "http://a", "dialect": "klingon"}, "upstreams[0].dialect"),
        ({"url": "http://a", "continuation": ["magic"]}, "upstreams[0].continuation"),
        ({"url": "http://a", "modles": ["m"]}, "upstreams[0].modles"),
    ],
)
def test_upstream_that_cannot_be_used_is_refused_by_field(
    upstream: dict[str, Any], named: str
) -> None:
    with pytest.raises(ConfigError) as refused:
        GatewayConfig.from_tree({"upstreams": [upstream]})
    assert str(refused.value).startswith(named)
    assert problems_of({"upstreams": [upstream]}) != []


def test_key_in_a_url_is_refused_without_saying_it() -> None:
    with pytest.raises(ConfigError, match="key_variable or key_file") as refused:
        GatewayConfig.from_tree({"upstreams": [{"url": "http://u:sk-secret@a/v1"}]})
    assert "sk-secret" not in str(refused.value)


def test_upstreams_need_names_of_their_own() -> None:
    with pytest.raises(ConfigError, match=r"upstreams\[0\].name"):
        GatewayConfig.from_tree({"upstreams": [{"url": "http://a/v1"}, {"url": "http://a/v2"}]})


def test_gateway_without_any_source_of_tokens_is_refused() -> None:
    with pytest.raises(ConfigError, match="backend.kind"):
        GatewayConfig.from_tree({"backend": {"kind": "none"}})


def test_engine_may_serve_beside_upstreams() -> None:
    tree = {"backend": {"kind": "local"}, "upstreams": [{"url": "http://a"}]}
    assert GatewayConfig.from_tree(tree).own_backend == "local"
    assert GatewayConfig.from_tree({}).own_backend == "local"


def test_shown_configuration_can_be_read_again_and_holds_no_key(tmp_path: Path) -> None:
    file = tmp_path / "wetink.toml"
    file.write_text(TOML)
    text = shown(file, {"BIG_KEY": "sk-secret"})
    assert "sk-secret" not in text
    again = tmp_path / "again.toml"
    again.write_text(text)
    assert GatewayConfig.load(again, env={}).upstreams == GatewayConfig.load(file, env={}).upstreams


@pytest.mark.parametrize("url", ["gpu1", "http://u:sk-secret@a"])
def test_command_refuses_what_is_no_url(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--upstream", url, "--port", "0"]) == 1
    said = capsys.readouterr().err
    assert "upstream" in said and "sk-secret" not in said


def test_command_refuses_a_key_that_belongs_to_no_upstream(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["serve", "--upstream-key-variable", "A", "--port", "0"]) == 1
    assert "--upstream-key-variable: it goes with --upstream" in capsys.readouterr().err
