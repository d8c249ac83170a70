from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from gateway.access import Allowance
from gateway.access import keys as stored
from gateway.access.keys import Key, Scope
from gateway.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

DRAWN, KEPT = stored.draw("a", Scope(models=["m"], priority=3), Allowance(streams=2), now=5)


def test_key_is_known_by_its_id_and_proven_by_its_secret() -> None:
    presented = stored.parse(DRAWN)
    assert presented is not None
    assert presented.id == KEPT.id
    assert stored.is_secret_of(KEPT, presented.secret)
    assert not stored.is_secret_of(KEPT, presented.secret[:-1] + "!")
    broken = Key(id=KEPT.id, name="a", hash="$argon2id$nonsense", created=0)
    assert not stored.is_secret_of(broken, presented.secret)


def test_nothing_that_is_kept_of_a_key_is_its_secret(tmp_path: Path) -> None:
    presented = stored.parse(DRAWN)
    assert presented is not None
    stored.write(tmp_path / "keys.json", [KEPT])
    assert presented.secret not in (tmp_path / "keys.json").read_text()
    assert KEPT.hash.startswith("$argon2id$v=19$m=19456,t=2,p=1$")


@pytest.mark.parametrize(
    "text",
    ["", "sk-x", DRAWN[:-1], DRAWN + "a", DRAWN.upper(), DRAWN.replace("_", "-"), "x" * 10_000],
)
def test_text_without_a_keys_form_is_none(text: str) -> None:
    assert stored.parse(text) is None


def test_file_of_keys_reads_back_and_is_its_owners_alone(tmp_path: Path) -> None:
    file = tmp_path / "new" / "keys.json"
    assert stored.read(file) is None
    stored.write(file, [KEPT])
    assert stored.read(file) == [KEPT]
    assert file.stat().st_mode & 0o777 == 0o600
    stored.write(file, [])
    assert stored.read(file) == []
    assert [each.name for each in file.parent.iterdir()] == ["keys.json"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "is empty"),
        ("[", "not complete JSON"),
        ("[]", "it must be an object"),
        ('{"version": 2, "keys": []}', "version must be an integer of at least 1 and at most 1"),
        ('{"version": 1, "keys": [{}]}', r"keys\[0\].\w+ is required"),
        ('{"version": 1, "keys": [], "x": 1}', "x is unknown"),
    ],
)
def test_operator_is_told_what_is_wrong_with_a_file(
    tmp_path: Path, content: str, said: str
) -> None:
    file = tmp_path / "keys.json"
    file.write_text(content)
    with pytest.raises(ConfigError, match=said) as refused:
        stored.read(file)
    assert str(file) in str(refused.value)


def test_operator_is_told_of_two_keys_of_one_name(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    stored.write(file, [KEPT, Key(id="0" * 12, name="a", hash="", created=0)])
    with pytest.raises(ConfigError, match="same id or name"):
        stored.read(file)


def test_operator_is_told_of_a_file_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Is a directory"):
        stored.read(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot write the keys"):
        stored.write(tmp_path / "file" / "keys.json", [])


def test_keys_are_looked_for_in_the_users_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert stored.default_path() == tmp_path / "wetink" / "keys.json"
    monkeypatch.setenv("XDG_CONFIG_HOME", "")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert stored.default_path() == tmp_path / ".config" / "wetink" / "keys.json"
