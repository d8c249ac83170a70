"""vLLM's scheduler, with what it drafts and verifies published: `--scheduler-cls
wetink_vllm.scheduler.scheduler`.

The one module that imports vLLM. Whatever happens to the plugin, the engine does what it does
without it: its own method always runs first, and a failure of ours ends the publishing alone.
"""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Any

import zmq
from vllm.platforms import current_platform
from vllm.tokenizers.registry import cached_tokenizer_from_config
from vllm.triton_utils import HAS_TRITON
from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.core.sched.scheduler import Scheduler

from wetink_vllm.endpoints import endpoint_of
from wetink_vllm.publisher import Publisher
from wetink_vllm.watching import Watch

if TYPE_CHECKING:
    from collections.abc import Callable

    from vllm.config import VllmConfig

logger = logging.getLogger("vllm.wetink")

ENDPOINT = os.environ.get("WETINK_VLLM_DRAFTS", "tcp://127.0.0.1:5757")


def scheduler(vllm_config: VllmConfig, **arguments: Any) -> Scheduler:
    """What `--scheduler-cls` calls as it would a class."""
    if vllm_config.scheduler_config.async_scheduling:
        logger.warning(
            "wetink: with async scheduling drafts never leave the GPU's worker, so none are "
            "published and readers see committed text only. Start with --no-async-scheduling"
        )
        return AsyncScheduler(vllm_config=vllm_config, **arguments)
    return PublishingScheduler(vllm_config=vllm_config, **arguments)


class PublishingScheduler(Scheduler):
    def __init__(self, vllm_config: VllmConfig, **arguments: Any) -> None:
        super().__init__(vllm_config=vllm_config, **arguments)
        self._publisher = _publisher(vllm_config)
        self._watch = None if self._publisher is None else Watch(self._publisher.put)

    def update_from_output(self, scheduler_output: Any, model_runner_output: Any) -> Any:
        took_part: dict[str, Any] = {}
        lengths: dict[str, int] = {}
        scheduled: dict[str, list[int]] = {}

        def before() -> None:
            scheduled.update(scheduler_output.scheduled_spec_decode_tokens)
            for request_id in scheduler_output.num_scheduled_tokens:
                if (request := self.requests.get(request_id)) is not None:
                    took_part[request_id] = request
                    lengths[request_id] = len(request.output_token_ids)

        self._try(lambda watch: before())
        outputs = super().update_from_output(scheduler_output, model_runner_output)
        self._try(lambda watch: watch.judged(took_part, scheduled, lengths))
        return outputs

    def update_draft_token_ids(self, draft_token_ids: Any) -> None:
        super().update_draft_token_ids(draft_token_ids)
        self._try(
            lambda watch: watch.drafted(
                request
                for request_id in draft_token_ids.req_ids
                if (request := self.requests.get(request_id)) is not None
            )
        )

    def finish_requests(self, request_ids: Any, finished_status: Any) -> Any:
        finished = super().finish_requests(request_ids, finished_status)
        self._try(lambda watch: watch.ended(request.request_id for request in finished))
        return finished

    def shutdown(self) -> None:
        super().shutdown()
        self._watch = None
        if self._publisher is not None:
            self._publisher.close()
            self._publisher = None

    def _try(self, watching: Callable[[Watch], None]) -> None:
        if self._watch is None:
            return
        try:
            watching(self._watch)
        except Exception:  # another vLLM may hold things differently: its own work goes on
            logger.exception("wetink: drafts are not published any more")
            self._watch = None


def _publisher(config: VllmConfig) -> Publisher | None:
    """None, and why in the log, where there is nothing to publish or no way to."""
    if config.speculative_config is None:
        logger.warning("wetink: no drafts to publish: start with --speculative-config")
        return None
    tokenizer = getattr(cached_tokenizer_from_config(config.model_config), "_tokenizer", None)
    if tokenizer is None:
        logger.warning("wetink: no drafts are published: the tokenizer is not of the fast kind")
        return None
    greedy_only = current_platform.is_cpu() and not HAS_TRITON
    if greedy_only:
        logger.warning(
            "wetink: vLLM speculates here without Triton, which corrupts the text of every request "
            "with a temperature above 0. The gateway refuses those while it hears of this engine"
        )
    endpoint = endpoint_of(ENDPOINT, config.parallel_config.data_parallel_rank)
    try:
        publisher = Publisher(endpoint, tokenizer, greedy_only=greedy_only)
    except zmq.ZMQError as error:
        logger.warning("wetink: no drafts are published: cannot bind %s: %s", endpoint, error)
        return None
    publisher.start()
    logger.info("wetink: drafts are published on %s", publisher.endpoint)
    return publisher
