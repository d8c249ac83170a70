from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

import pytest

from gateway.cli import main
from gateway.config.upstreams import UpstreamConfig, check_upstreams
from gateway.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path


def check(*drafts: str) -> None:
    check_upstreams([UpstreamConfig(url="http://127.0.0.1:8000", drafts=list(drafts))])


@pytest.mark.parametrize(
    "address", ["tcp://127.0.0.1:5757", "tcp://gpu1:5757", "tcp://[::1]:5757", "ipc:///run/drafts"]
)
def test_gateway_takes_the_addresses_that_engines_publish_at(address: str) -> None:
    check(address)


@pytest.mark.parametrize(
    "address", ["127.0.0.1:5757", "tcp://127.0.0.1", "tcp://127.0.0.1:*", "http://gpu1:5757", ""]
)
def test_gateway_refuses_a_second_address_that_is_none(address: str) -> None:
    with pytest.raises(ConfigError, match=r"upstreams\[0\]\.drafts"):
        check("tcp://127.0.0.1:5757", address)


def test_gateway_says_what_to_install_where_drafts_cannot_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "wetink.toml"
    file.write_text(
        '[[upstreams]]\nurl = "http://127.0.0.1:1"\ndrafts = ["tcp://127.0.0.1:5757"]\n',
        encoding="utf-8",
    )

    def find_nothing(name: str) -> None:
        del name

    monkeypatch.setattr(importlib.util, "find_spec", find_nothing)
    assert main(["serve", "--config", str(file), "--allow-anyone", "--port", "0"]) == 1
    assert "pip install 'wetink-gateway[vllm]'" in capsys.readouterr().err
