from __future__ import annotations

import asyncio
import resource
import socket
from typing import TYPE_CHECKING

import pytest

from gateway import cli, doctor, engine_packages
from tests.server.keyed import draw_keys, key_served
from tests.upstreams.fake import fake_upstream

if TYPE_CHECKING:
    from pathlib import Path


def finding(about: str, path: Path | None = None) -> doctor.Finding:
    return next(each for each in doctor.examine(path) if each.about == about)


@pytest.fixture
def scripted(tmp_path: Path) -> Path:
    path = tmp_path / "wetink.toml"
    path.write_text("[server]\nport = 0\n[backend]\nkind = 'scripted'\n")
    return path


def test_doctor_finds_nothing_where_nothing_is(
    scripted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["doctor", "--config", str(scripted)]) == 0
    said = capsys.readouterr().out
    assert "ok      engine: none needed" in said
    assert "broken" not in said


def test_doctor_says_what_is_broken_and_how_to_mend_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "wetink.toml"
    path.write_text("[server]\nprot = 1\nhots = 1\n")
    assert cli.main(["doctor", "--config", str(path)]) == 1
    said = capsys.readouterr().out
    assert "broken  configuration: server.prot is unknown; did you mean server.port?; " in said
    assert "did you mean server.host?" in said
    assert "        mend: wetink config check FILE" in said
    assert "1 broken: Wetink does not serve like this." in said


def test_doctor_finds_a_port_that_is_taken(scripted: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        scripted.write_text(scripted.read_text().replace("port = 0", f"port = {port}"))
        assert finding("port", scripted).state == "broken"


def test_doctor_says_whom_an_address_lets_in(scripted: Path) -> None:
    text = scripted.read_text()
    assert finding("address", scripted).state == "ok"
    scripted.write_text(text.replace("[server]", "[server]\nhost = '0.0.0.0'"))
    assert "reaches the gateway" in finding("address", scripted).found


@pytest.mark.parametrize(("soft", "state"), [(1024, "lost"), (65536, "ok"), (-1, "ok")])
def test_doctor_counts_open_files(
    soft: int, state: str, scripted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def getrlimit(_which: int) -> tuple[int, int]:
        return soft, 65536

    monkeypatch.setattr(resource, "getrlimit", getrlimit)
    assert finding("open files", scripted).state == state


def test_doctor_finds_a_temporary_folder_whose_name_is_too_long(
    scripted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.gettempdir", lambda: "/tmp/" + 90 * "x")
    assert finding("temporary folder", scripted).state == "broken"


def test_doctor_misses_the_engines_packages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_packages, "NAMES", ("torch_that_is_not_there",))
    path = tmp_path / "wetink.toml"
    path.write_text("[server]\nport = 0\n")
    assert finding("libraries", path).mend == engine_packages.INSTALL


def test_doctor_passes_on_what_the_engine_cannot_use(tmp_path: Path) -> None:
    path = tmp_path / "wetink.toml"
    path.write_text("[server]\nport = 0\n[engine]\nthreads = 0\n")
    found = finding("configuration", path)
    assert found.state == "broken"
    assert "engine.threads: " in found.found


@pytest.mark.slow
def test_doctor_examines_the_engines_side_in_its_own_process(tmp_path: Path) -> None:
    path = tmp_path / "wetink.toml"
    path.write_text(f"[server]\nport = 0\n[engine]\nmodel = '{tmp_path}'\n")
    findings = {each.about: each for each in doctor.examine(path)}
    assert {"processor", "compiler", "kernels", "libraries", "cores", "memory"} <= set(findings)
    assert findings["libraries"].state == "ok"
    assert findings["model"].state == "broken"


async def upstream_findings(path: Path, **settings: str) -> list[doctor.Finding]:
    """`settings`: of one upstream, as TOML writes them."""
    lines = "\n".join(f"{name} = {value}" for name, value in settings.items())

    def examine() -> list[doctor.Finding]:
        path.write_text(f"[server]\nport = 0\n[ahead]\nenabled = false\n[[upstreams]]\n{lines}\n")
        return doctor.examine(path)

    findings = await asyncio.to_thread(examine)
    return [each for each in findings if each.about.startswith("upstream")]


async def test_doctor_looks_at_every_server_of_an_upstream(tmp_path: Path) -> None:
    async with fake_upstream() as gone:
        pass
    async with fake_upstream() as fake:
        urls = f'["{fake.url}", "{gone.url}"]'
        well, ill = await upstream_findings(tmp_path / "w.toml", urls=urls)
        assert (well.state, ill.state) == ("ok", "lost")
        assert well.found.endswith(" serves m")
        assert "cannot be reached" in ill.found
        wanted = {"url": f'"{fake.url}"', "models": '{ chat = "large" }'}
        (missing,) = await upstream_findings(tmp_path / "w.toml", **wanted)
        assert (missing.state, missing.found.endswith("does not list large")) == ("lost", True)


async def test_doctor_finds_a_key_that_is_not_there_or_not_good(tmp_path: Path) -> None:
    file = tmp_path / "w.toml"
    (unset,) = await upstream_findings(file, url='"http://127.0.0.1:1"', key_variable='"NOT_SET"')
    assert (unset.state, "NOT_SET is not set" in unset.found) == ("broken", True)
    async with key_served(draw_keys(), tmp_path) as served:
        (refused,) = await upstream_findings(file, url=f'"{served.url}"')
    assert (refused.state, "does not let this gateway in" in refused.found) == ("broken", True)
