from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from engine import config as engine_config
from gateway.config import EngineConfig, GatewayConfig, profiles_of
from gateway.errors import ConfigError
from protocol.requests import Chunk, StreamRetract


def test_operator_gets_defaults_without_any_source() -> None:
    config = GatewayConfig.load(env={})
    assert config == GatewayConfig()
    assert profiles_of(config.policies)[config.policies.default] == StreamRetract(budget=0.05)


def test_operator_overrides_file_by_environment_by_command_line(tmp_path: Path) -> None:
    path = tmp_path / "wetink.toml"
    path.write_text('[server]\nhost = "::1"\nport = 1\n[limits]\nlive_streams = 1\n')
    config = GatewayConfig.load(
        path,
        {"server.port": 3},
        env={"WETINK_SERVER_PORT": "2", "WETINK_LIMITS_LIVE_STREAMS": "2", "WETINK_OTHER": "x"},
    )
    assert (config.server.host, config.server.port, config.limits.live_streams) == ("::1", 3, 2)


def test_operator_lists_origins_in_the_environment() -> None:
    env = {"WETINK_SERVER_ALLOWED_ORIGINS": "http://a.test,http://b.test"}
    config = GatewayConfig.load(env=env)
    assert config.server.allowed_origins == ["http://a.test", "http://b.test"]


def test_operator_adds_a_profile(tmp_path: Path) -> None:
    path = tmp_path / "wetink.toml"
    path.write_text(
        '[policies]\ndefault = "car"\n[policies.profiles.car]\nkind = "chunk"\nunit = "clause"\n'
    )
    config = GatewayConfig.load(path, env={})
    assert profiles_of(config.policies)["car"] == Chunk(unit="clause")
    assert "tts" in profiles_of(config.policies)


@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        ({"server.port": 70000}, "server.port"),
        ({"server.prot": 1}, "prot"),
        ({"limits.body_bytes": 0}, "limits.body_bytes"),
        ({"backend.kind": "magic"}, "backend.kind"),
        ({"policies.default": "nope"}, "allowed are api, chat, ide, tts"),
        ({"policies.profiles": {"hold": {"kind": "hold"}}}, "'hold'"),
        ({"policies.profiles": {"x": {"kind": "chunk", "unit": "page"}}}, "unit"),
        ({"policies.profiles": {"x": {"kind": "chunk", "locale": "??"}}}, "policies.profiles.x"),
    ],
)
def test_operator_is_told_which_key_is_wrong(overrides: dict[str, object], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        GatewayConfig.load(overrides=overrides, env={})


@pytest.mark.parametrize("content", [b"[server", b"\xff"])
def test_operator_is_told_which_file_is_broken(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"broken\.toml"):
        GatewayConfig.load(path, env={})


def test_operator_is_told_that_a_section_is_no_value(tmp_path: Path) -> None:
    path = tmp_path / "wetink.toml"
    path.write_text("server = 5\n")
    with pytest.raises(ConfigError, match=r"server: a table"):
        GatewayConfig.load(path, {"server.port": 1}, env={})


def test_operator_is_told_that_the_file_is_missing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        GatewayConfig.load(tmp_path / "none.toml", env={})


def test_config_takes_engine_settings_from_file_and_overrides(tmp_path: Path) -> None:
    file = tmp_path / "wetink.toml"
    file.write_text('[engine]\nmodel = "a"\ndraft_length = 4\n')
    config = GatewayConfig.load(file, {"engine.model": "b"}, env={})
    assert config.engine == EngineConfig(model="b", draft_length=4)


def test_config_refuses_unknown_engine_setting_by_name(tmp_path: Path) -> None:
    file = tmp_path / "wetink.toml"
    file.write_text("[engine]\ndraft_lenght = 4\n")
    with pytest.raises(ConfigError, match="draft_lenght"):
        GatewayConfig.load(file, env={})


def test_documented_configuration_is_the_default_one(tmp_path: Path) -> None:
    page = Path(__file__).parents[3] / "docs" / "OPERATING.md"
    example = page.read_text().split("```toml\n")[1].split("```")[0]
    file = tmp_path / "wetink.toml"
    file.write_text(example)
    documented, usual = GatewayConfig.load(file, env={}), GatewayConfig()
    assert documented.server == usual.server
    assert documented.limits == usual.limits
    assert documented.delivery == usual.delivery
    assert documented.policies.default == usual.policies.default
    engine = msgspec.structs.asdict(engine_config.EngineConfig())
    given = {k: v for k, v in msgspec.structs.asdict(documented.engine).items() if v is not None}
    assert given == {key: engine[key] for key in given}
