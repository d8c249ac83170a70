"""A vLLM with its plugin as a source of text: HTTP is the OpenAI backend's, drafts come apart."""

from __future__ import annotations

import logging
import secrets
from typing import TYPE_CHECKING

import msgspec

from gateway.backends.base import DraftsState, Failed, Finished
from gateway.backends.openai import OpenAIBackend
from gateway.backends.vllm.channel import Channel
from gateway.backends.vllm.joined import JoinedStream
from protocol.errors import ErrorCode, RequestError

if TYPE_CHECKING:
    from gateway.backends.base import Admission, BackendEvent, Sink, UpstreamState
    from gateway.backends.openai.requests import Asked
    from gateway.backends.vllm.channel import Engine
    from gateway.backends.vllm.messages import Update
    from gateway.config.upstreams import UpstreamConfig
    from protocol.requests import GenerationRequest

logger = logging.getLogger("wetink.upstreams")


class VllmBackend(OpenAIBackend):
    """Where nothing is heard of the plugin, it is the same without drafts."""

    def __init__(self, config: UpstreamConfig) -> None:
        super().__init__(config)
        self._channel = Channel(config.drafts, self._hear)
        self._joined: dict[str, JoinedStream] = {}
        """By the name that vLLM knows the request by."""
        self._named: dict[str, str] = {}
        """That name, by stream."""

    @property
    def engines(self) -> list[Engine]:
        """Those whose plugin is heard at present."""
        return self._channel.engines

    async def start(self) -> None:
        self._channel.open()
        await super().start()

    async def stop(self) -> None:
        await super().stop()
        await self._channel.close()

    async def generate(
        self,
        stream: str,
        request: GenerationRequest,
        sink: Sink,
        *,
        want_drafts: bool = False,
        tenant: str = "",
    ) -> Admission:
        self._require_sound_sampling(request)
        # The plugin publishes requests whose name looks like this.
        name = self._named[stream] = f"wetink-{secrets.token_hex(16)}"
        joined = self._joined[name] = JoinedStream(sink, request.stop, want_drafts=want_drafts)

        def accept(event: BackendEvent) -> None:
            if isinstance(event, Finished | Failed):
                self._forget(stream)
            joined.accept(event)

        try:
            return await super().generate(
                stream, request, accept, want_drafts=want_drafts, tenant=tenant
            )
        except BaseException:
            self._forget(stream)
            raise

    def want_drafts(self, stream: str, wanted: bool) -> None:
        if stream in self._named:
            self._joined[self._named[stream]].want_drafts(wanted)

    def upstreams(self) -> list[UpstreamState]:
        channel = self._channel
        drafts = DraftsState(
            engines=len(channel.engines),
            lost_frames=channel.lost_frames,
            missed_steps=channel.missed_steps,
        )
        return [msgspec.structs.replace(state, drafts=drafts) for state in super().upstreams()]

    def _asked(self, stream: str, request: GenerationRequest) -> Asked:
        return super()._asked(stream, request)._replace(name=self._named[stream])

    def _hear(self, engine: str, update: Update) -> None:
        joined = self._joined.get(update.request)
        if joined is None:
            return  # another gateway's, or ended
        believed = joined.is_believed
        joined.hear(engine, update)
        if believed and not joined.is_believed:
            logger.info("upstream %s drafts another text than it sends; not shown", self.name)

    def _forget(self, stream: str) -> None:
        name = self._named.pop(stream, None)
        if name is not None:
            del self._joined[name]

    def _require_sound_sampling(self, request: GenerationRequest) -> None:
        if request.temperature != 0.0 and self._channel.greedy_only:
            raise RequestError(
                ErrorCode.INVALID_VALUE,
                "temperature: this vLLM speculates on a CPU without Triton, which corrupts text "
                "that is sampled; ask for 0",
                "temperature",
            )
