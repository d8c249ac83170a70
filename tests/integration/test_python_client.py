"""The Python client as its users have it: with asyncio, trio or neither, and from its own wheel."""

from __future__ import annotations

import gc
import os
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest
import trio

import wetink
import wetink.sync
from gateway.backends.scripted import BUILT_IN_TRACES
from wetink import cli

if TYPE_CHECKING:
    from collections.abc import Iterator

    from wetink.client import TransportName

CLIENT = Path(__file__).parents[2] / "clients" / "python"
TRACE = BUILT_IN_TRACES / "talk.jsonl"


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """A gateway in a process of its own that plays 24 times the same talk: a minute of it."""
    program = "import sys; from gateway.cli import main; sys.exit(main(sys.argv[1:]))"
    command = ["-c", program, "serve", "--port", "0", "--trace", str(TRACE)]
    environment = {**os.environ, "WETINK_BACKEND_REPEAT": "24"}
    with subprocess.Popen(
        [sys.executable, *command], stdout=subprocess.PIPE, text=True, env=environment
    ) as gateway:
        assert gateway.stdout is not None
        try:
            address = None
            while address is None:
                line = gateway.stdout.readline()
                assert line, "the gateway ended before it served"
                address = re.search(r" at (http://\S+)", line)
            yield address[1]
        finally:
            gateway.terminate()


async def beginning(url: str) -> tuple[str, str]:
    """The first 40 characters of a stream, which is cancelled then, and how it ended."""
    text = ""
    async with wetink.stream(url, prompt="Go on", policy="hold") as talk:
        async for piece in talk.committed():
            text += piece
            if len(text) >= 40:
                await talk.cancel()
    assert talk.finish is not None
    return text[:40], talk.finish.reason


def state(url: str, stream: str) -> str:
    return httpx.get(f"{url}/v1/streams/{stream}").json()["state"]


# Of a body left unread, httpx leaves an iterator to the garbage collector; trio remarks on it.
@pytest.mark.filterwarnings("ignore::ResourceWarning")
async def test_stream_reads_the_same_under_trio_and_without_async(url: str) -> None:
    here = await beginning(url)
    assert here[1] == "cancelled"

    async def under_trio() -> tuple[str, str]:
        return await beginning(url)

    def without_async() -> tuple[str, str]:
        text = ""
        with wetink.sync.stream(url, prompt="Go on", policy="hold") as talk:
            for piece in talk.committed():
                text += piece
                if len(text) >= 40:
                    talk.cancel()
        assert talk.finish is not None
        assert talk.view.committed == text
        return text[:40], talk.finish.reason

    assert trio.run(under_trio) == here
    gc.collect()
    assert without_async() == here


async def test_blocking_stream_is_read_inside_a_running_loop_as_a_notebook_has_one(
    url: str,
) -> None:
    with wetink.sync.stream(url, prompt="Go on") as talk:
        kinds = [type(event) for event, _ in zip(talk, range(3), strict=False)]
        talk.cancel()
    assert kinds[0] is wetink.Open


@pytest.mark.parametrize("transport", ["sse", "ws"])
async def test_generation_is_cancelled_when_its_caller_fails(
    url: str, transport: TransportName
) -> None:
    talk = wetink.stream(url, prompt="Go on", transport=transport)
    with pytest.raises(ZeroDivisionError):
        async with talk:
            await anext(talk)
            raise ZeroDivisionError
    assert state(url, talk.id) == "finished"


def test_generation_is_cancelled_when_its_caller_is_interrupted(url: str) -> None:
    with pytest.raises(KeyboardInterrupt), wetink.sync.stream(url, prompt="Go on") as talk:
        next(iter(talk))
        raise KeyboardInterrupt
    assert state(url, talk.id) == "finished"


def test_generation_of_others_goes_on_when_a_reader_fails(url: str) -> None:
    with wetink.sync.stream(url, prompt="Go on") as talk:
        with pytest.raises(ZeroDivisionError), wetink.sync.attach(url, talk.id) as other:
            next(iter(other))
            raise ZeroDivisionError
        assert state(url, talk.id) == "running"
        talk.cancel()


def test_blocking_reader_says_what_it_spoke(url: str) -> None:
    with wetink.sync.stream(url, prompt="Go on", policy="hold", transport="ws") as talk:
        first = next(talk.committed())
        assert talk.ack(len(first))
        told = None
        while told is None:  # an ack has no answer
            [attachment] = httpx.get(f"{url}/v1/streams/{talk.id}").json()["attachments"]
            told = attachment["ack"]
        talk.cancel()
    assert told == f"0.{len(first)}"


def test_address_needs_no_scheme(url: str) -> None:
    with wetink.sync.stream(url.removeprefix("http://"), prompt="Go on") as talk:
        talk.cancel()


def test_attach_reads_what_another_started(url: str, capfd: pytest.CaptureFixture[str]) -> None:
    with wetink.sync.stream(url, prompt="Go on", policy="hold", seed=1) as talk:
        for text in talk.committed():
            if text:
                talk.cancel()
    assert cli.main(["attach", talk.id, "--url", url, "--policy", "hold"]) == 0
    assert capfd.readouterr().out.rstrip("\n") == talk.view.committed.rstrip("\n")


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The client's wheel, built from the checkout and from its source archive."""

    def build(source: Path, target: Path, *kinds: str) -> None:
        subprocess.run(
            [sys.executable, "-m", "hatchling", "build", "-d", str(target), *kinds],
            cwd=source,
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    folder = tmp_path_factory.mktemp("wheels")
    build(CLIENT, folder, "-t", "wheel", "-t", "sdist")
    archive = next(folder.glob("*.tar.gz"))
    with tarfile.open(archive) as sources:
        sources.extractall(folder / "unpacked", filter="data")
    build(next((folder / "unpacked").iterdir()), folder / "again", "-t", "wheel")
    return next(folder.glob("*.whl")), next((folder / "again").glob("*.whl"))


def test_wheel_holds_the_protocol_and_takes_no_other_name(wheels: tuple[Path, Path]) -> None:
    contents: list[dict[str, bytes]] = []
    for path in wheels:
        with zipfile.ZipFile(path) as wheel:
            files = {name: wheel.read(name) for name in wheel.namelist()}
        contents.append({name: data for name, data in files.items() if name.endswith(".py")})
    first, second = contents
    assert first == second
    assert {name.partition("/")[0] for name in first} == {"wetink"}
    here = {f"wetink/{p.relative_to(CLIENT / 'wetink')}" for p in CLIENT.glob("wetink/**/*.py")}
    assert here < set(first)
    assert "wetink/protocol/ledger.py" in first


def test_wheel_works_alone(wheels: tuple[Path, Path], url: str, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheels[0]) as wheel:
        wheel.extractall(tmp_path)
    program = (
        "import sys\n"
        f"sys.path.insert(0, {str(tmp_path)!r})\n"
        "import wetink\n"
        "assert not {'httpx', 'websockets', 'asyncio'} & set(sys.modules), 'slow to import'\n"
        "import wetink.sync\n"
        f"with wetink.sync.stream({url!r}, prompt='Go on', transport=sys.argv[1]) as talk:\n"
        "    talk.cancel()\n"
        "    print(*(type(event).__name__ for event in talk))\n"
        "foreign = {'protocol', 'gateway', 'engine', 'starlette', 'torch', 'icu4py', 'numpy'}\n"
        "foreign |= {'wetink.say', 'sentencex', 'espeakng_loader'}\n"
        "print(sorted(foreign & set(sys.modules)), wetink.__file__)\n"
    )
    for transport in ("sse", "ws"):
        lines = subprocess.run(
            [sys.executable, "-I", "-c", program, transport],
            check=True,
            capture_output=True,
            text=True,
        ).stdout.splitlines()
        assert lines[0].startswith("Open")
        assert lines[0].endswith("Finish")
        assert lines[1] == f"[] {tmp_path}/wetink/__init__.py"
