"""The sample trace through the real server, as somebody tries it out."""

from __future__ import annotations

import asyncio

from gateway.backends.scripted import BUILT_IN_TRACES, ScriptedBackend, load_traces
from protocol.events import Commit
from protocol.receiver import Receiver
from tests.server.gateways import Reader, serving


async def test_sample_trace_reads_the_same_under_every_policy() -> None:
    backend = ScriptedBackend(load_traces(BUILT_IN_TRACES), speed=20.0)
    async with serving(backend) as (_, http):
        while (await http.get("/readyz")).status_code != 200:
            pass
        created = (await http.post("/v1/streams", json={"prompt": "lighthouses?"})).json()

        async def read(policy: str) -> tuple[Receiver, list[str]]:
            view, commits = Receiver(), list[str]()
            path = f"{created['events']}?policy={policy}"
            async with http.stream("GET", path) as response:
                for event, _ in await Reader(response).to_end():
                    view.receive(event)
                    assert view.failure is None, view.failure
                    if isinstance(event, Commit):
                        commits.append(event.text)
            return view, commits

        policies = ["hold", "retract", "retract:10", "chunk:word", "chunk:sentence", "ide", "tts"]
        results = await asyncio.gather(*map(read, policies))
    texts = {view.committed for view, _ in results}
    assert len(texts) == 1
    sentences = results[policies.index("tts")][1]
    assert sentences[1:3] == [
        "The first one stood in Alexandria, Egypt. ",
        "Dr. Smith put its height at about 103.5 metres. ",
    ]
