"""Drafts of an EAGLE-3 head on a GPU: a pass over all sequences is one replay, and so is each next.

Which token a pass draws, and whether its draft goes on, stays on the device, where the next pass
reads it; nothing waits until the last pass is launched. So a call makes as many passes as its
longest draft may have tokens; a draft that ended sooner lies idle in the others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from engine.errors import IntegrityError
from engine.kernels.device import Tiles
from engine.kernels.library import CHANCE_LEVELS, CHANCE_PLACES
from engine.model.asking import (
    KINDS,
    ask,
    ask_nothing,
    bias_of,
    fields,
    kind_of,
    penalties_of,
)
from engine.model.draft_head import PROFILE_SEQUENCES, HeadDraft, Profiled, profiled_drafts
from engine.model.graph_runner import row_counts
from engine.model.step_buffers import Twins
from engine.sampling.choosing import Asked, Kind, Penalties, biased, choose, penalised
from engine.sampling.sampler import Judged

if TYPE_CHECKING:
    from collections.abc import Sequence

    from engine.kernels.device import DeviceKernels
    from engine.model.draft_head import DraftItem
    from engine.model.graph_runner import GraphRunner
    from engine.scheduling.draft_length import StepCost

UNSEEN = 1
"""Place 0 has no feature before it, hence no keys."""
TOKENS, CHANCES, CONFIDENCE = 0, CHANCE_PLACES, 2 * CHANCE_PLACES
"""Where in a row's answer they begin."""
COUNT = 3 * CHANCE_PLACES


class _Begin(NamedTuple):
    rows: int


class _Pass(NamedTuple):
    """How a pass draws its tokens, with which recorded work is found again."""

    rows: int
    kind: Kind


class _Changes(NamedTuple):
    """What is done to logits before a token is drawn, beside what is recorded."""

    penalties: Penalties | None
    lengths: torch.Tensor  # [rows] int64, of the texts before the draft
    bias: tuple[torch.Tensor, torch.Tensor] | None

    def made(self, x: torch.Tensor) -> torch.Tensor:
        """x [rows, vocab] float32, as `sampler.py` would have it."""
        if self.penalties is not None:
            x = penalised(x, self.penalties)
        return x if self.bias is None else biased(x, *self.bias)

    def said(self, tokens: torch.Tensor, number: torch.Tensor) -> None:
        """These are the tokens [rows] of pass `number` [1]: they count as said from now on."""
        if self.penalties is not None:
            place = (self.lengths + number).unsqueeze(1)
            self.penalties.history.scatter_(1, place, tokens.unsqueeze(1))
            self.penalties.completion.scatter_(1, place, torch.ones_like(place, dtype=torch.bool))


class GraphHeadRunner:
    """A `HeadRunner` beside a `GraphRunner` that fills its head's cache."""

    def __init__(
        self, runner: GraphRunner, kernels: DeviceKernels, *, most_sequences: int, context: int
    ) -> None:
        """`runner` was made with a head; `kernels` are for the head's shape. `most_sequences` of a
        call; `context`: most tokens of a sequence.
        """
        cache = runner.head_cache
        if cache is None:
            raise IntegrityError("a head is to draft, but no step fills its cache")
        self._cache, self._head, self._kernels = cache, cache.head, kernels
        self._graphs, self._context = runner.graphs, context
        self._counts = row_counts(max(most_sequences, PROFILE_SEQUENCES[-1]), None)
        rows, device, size = self._counts[-1], cache.head.device, cache.keys.block_size
        self._spare_slot = (cache.keys.num_blocks - 1) * size
        row = (rows,)
        self._sent = Twins(
            {
                **fields(rows),
                "token": (np.int64, row),
                "place": (np.int64, row),
                "limit": (np.int64, row),
                "chances": (np.float32, (rows, CHANCE_PLACES * CHANCE_LEVELS)),
                "stop": (np.float32, (2,)),
                "tables": (np.int32, (rows, -(-context // size))),
            },
            device,
        )
        self._features = torch.zeros(
            (rows, cache.head.shape.hidden), dtype=cache.head.dtype, device=device
        )
        self._number = torch.zeros(1, dtype=torch.int64, device=device)
        """Of the pass."""
        self._token, self._place = (
            torch.zeros(row, dtype=torch.int64, device=device) for _ in range(2)
        )
        self._going = torch.zeros(row, dtype=torch.bool, device=device)
        self._sure = torch.ones(row, dtype=torch.float32, device=device)
        self._logits = torch.full(
            (rows, cache.head.target_vocab), -torch.inf, dtype=torch.float32, device=device
        )
        """By the target's tokens; those that the head does not know stay as they are."""
        self._rows = torch.arange(rows, dtype=torch.int32, device=device)
        self._said = torch.zeros((rows, COUNT + 1), dtype=torch.float64, device=device)
        self._heard = torch.zeros(
            (rows, COUNT + 1), dtype=torch.float64, pin_memory=torch.cuda.is_available()
        )
        self._passes: list[int] = []

    def record(self) -> None:
        """The usual passes, for every number of sequences."""
        for rows in self._counts:
            self._fill([], rows, 0.0, 1.0)
            self._graphs.record(_Begin(rows), lambda rows=rows: self._begin(rows))
            for kind in KINDS:
                way = _Pass(rows, kind)
                self._graphs.record(way, lambda way=way: self._pass(way, None))

    def draft(self, items: Sequence[DraftItem], *, floor: float, usual: float) -> list[HeadDraft]:
        """See `HeadRunner`."""
        if not items:
            return []
        self.launch(items, floor=floor, usual=usual)
        return self._drafts(len(items))

    def launch(self, items: Sequence[DraftItem], *, floor: float, usual: float) -> None:
        """Have the device draft; returns before it is done."""
        if len(items) > self._counts[-1]:
            raise IntegrityError(f"{len(items)} drafts; at most {self._counts[-1]} were planned")
        rows = next(count for count in self._counts if count >= len(items))
        self._fill(items, rows, floor, usual)
        way = _Pass(rows, kind_of([item.sampler for item in items]))
        changes = self._changes(items, rows)
        self._passes = [len(items)] * min(max(item.limit for item in items), CHANCE_PLACES)
        self._graphs.run(_Begin(rows), lambda: self._begin(rows))
        for _ in self._passes:
            if changes is None:
                self._graphs.run(way, lambda: self._pass(way, None))
            else:
                with torch.inference_mode():
                    self._pass(way, changes)

    def passes(self, drafts: Sequence[HeadDraft]) -> list[int]:
        """Each pass computes all sequences, whichever drafts went on."""
        return self._passes

    def profile(self, num_blocks: int) -> StepCost:
        """See `HeadRunner`."""
        size = self._cache.keys.block_size
        return profiled_drafts(
            lambda items: self.draft(items, floor=0.0, usual=1.0),
            lambda _: len(self._passes),
            Profiled(self._head.target_vocab, min(self._context, self._head.shape.context), size),
            num_blocks,
        )

    def _drafts(self, count: int) -> list[HeadDraft]:
        """Of the last launch: the one wait of a call."""
        said, heard = self._said.narrow(0, 0, count), self._heard.narrow(0, 0, count)
        heard.copy_(said, non_blocking=True)
        if said.device.type == "cuda":
            torch.cuda.current_stream(said.device).synchronize()
        drafts: list[HeadDraft] = []
        for row in heard.tolist():
            length = int(row[COUNT])
            tokens, chances, confidence = (
                row[at : at + length] for at in (TOKENS, CHANCES, CONFIDENCE)
            )
            drafts.append(HeadDraft([int(token) for token in tokens], chances, confidence))
        return drafts

    def _fill(self, items: Sequence[DraftItem], rows: int, floor: float, usual: float) -> None:
        host = {name: self._sent.host(name) for name in self._sent.names}
        ask_nothing(host, rows, self._head.target_vocab)
        for name in ("token", "place", "limit"):
            host[name][:rows] = 0
        host["stop"][:] = floor, usual
        for n, item in enumerate(items):
            ask(host, n, n + 1, _judged(item), self._head.target_vocab)
            host["token"][n], host["place"][n] = item.tokens[-1], len(item.tokens) - 1
            host["limit"][n] = min(item.limit, CHANCE_PLACES)
            host["chances"][n] = item.chances.reshape(-1)
            host["tables"][n, : len(item.block_table)] = item.block_table
        self._sent.send(len(items))

    def _changes(self, items: Sequence[DraftItem], rows: int) -> _Changes | None:
        """None where nobody asks for any."""
        vocab, device = self._head.target_vocab, self._head.device
        judged = [_judged(item) for item in items]
        penalties = bias = None
        with torch.inference_mode():
            if any(item.sampler.penalised for item in items):
                penalties = penalties_of(judged, rows, vocab, device, room=CHANCE_PLACES)
            if any(len(item.sampler.biased) for item in items):
                bias = bias_of(judged, rows, vocab, device)
            if penalties is None and bias is None:
                return None
            lengths = (self._sent.device("place") + 1).narrow(0, 0, rows)
        return _Changes(penalties, lengths, bias)

    def _slots(self, place: torch.Tensor, rows: int) -> torch.Tensor:
        """Slots [rows] int64 of places [rows] in each row's own blocks."""
        size = self._cache.keys.block_size
        tables = self._sent.device("tables").narrow(0, 0, rows)
        return tables.gather(1, (place // size).unsqueeze(1)).squeeze(1) * size + place % size

    def _begin(self, rows: int) -> None:
        """All drafts stand behind their texts."""

        def sent(name: str) -> torch.Tensor:
            return self._sent.device(name).narrow(0, 0, rows)

        place = sent("place")
        self._token.narrow(0, 0, rows).copy_(sent("token"))
        self._place.narrow(0, 0, rows).copy_(place)
        self._going.narrow(0, 0, rows).copy_(sent("limit") > 0)
        self._sure.narrow(0, 0, rows).fill_(1.0)
        self._said.narrow(0, 0, rows).fill_(0.0)
        self._number.zero_()
        before = self._slots((place - 1).clamp(min=0), rows)
        features = self._cache.features.index_select(0, before)
        self._features.narrow(0, 0, rows).copy_(features)

    def _pass(self, way: _Pass, changes: _Changes | None) -> None:
        """One more token for every draft that goes on."""
        rows, head = way.rows, self._head
        token, place, going, features = (
            each.narrow(0, 0, rows)
            for each in (self._token, self._place, self._going, self._features)
        )
        slots = self._slots(place, rows).masked_fill(~going, self._spare_slot)
        every = self._rows.narrow(0, 0, rows)
        tiles = Tiles(
            first=every,
            rows=going.int(),
            table=every,
            visible=((place + 1) * going).int(),
            tables=self._sent.device("tables"),
        )

        def attend(q: torch.Tensor, kv: torch.Tensor) -> torch.Tensor:
            self._cache.keys.write(0, slots, kv)
            return self._kernels.attend(q, self._cache.keys.layers[0], tiles, unseen=UNSEEN)

        x = head.row(token, features, (place - 1).clamp(min=0), attend)
        features.copy_(x)
        known = head.logits(x).float()
        logits = self._logits.narrow(0, 0, rows)
        logits.index_copy_(1, head.tokens, known)
        drawn = self._drawn(way, logits if changes is None else changes.made(logits))
        own = logits.gather(1, drawn.unsqueeze(1))
        chance = 1.0 / (known - own).exp().sum(1)
        good = going & known.amax(1).isfinite() & ~head.ends.index_select(0, drawn)
        if changes is not None:
            changes.said(drawn, self._number)
        self._keep(way, drawn, chance, good)

    def _drawn(self, way: _Pass, x: torch.Tensor) -> torch.Tensor:
        """The tokens [rows] that the target's own noise picks from x [rows, vocab] float32."""
        asked = {name: self._sent.device(name).narrow(0, 0, way.rows) for name in Asked._fields}
        asked["position"] = asked["position"] + self._number
        return choose(x, Asked(**asked), way.kind, self._kernels)

    def _keep(
        self, way: _Pass, drawn: torch.Tensor, chance: torch.Tensor, good: torch.Tensor
    ) -> None:
        """Write down what a pass found, and who goes on. `good` [rows]: whose tokens count."""
        rows, number = way.rows, self._number
        place, going, sure, said = (
            each.narrow(0, 0, rows) for each in (self._place, self._going, self._sure, self._said)
        )
        level = (chance.nan_to_num(0.0) * CHANCE_LEVELS).long().clamp(max=CHANCE_LEVELS - 1)
        chances = self._sent.device("chances").narrow(0, 0, rows)
        holds = chances.gather(1, (number * CHANCE_LEVELS + level).unsqueeze(1)).squeeze(1)
        sure.mul_(holds)
        for at, found in ((TOKENS, drawn), (CHANCES, chance), (CONFIDENCE, sure)):
            said.index_copy_(1, number + at, found.double().unsqueeze(1))
        said.select(1, COUNT).add_(good)
        floor, usual = self._sent.device("stop").unbind()
        limit = self._sent.device("limit").narrow(0, 0, rows)
        going.copy_(good & (number + 1 < limit) & ~(sure * usual < floor))
        self._token.narrow(0, 0, rows).copy_(drawn)
        place.add_(going)
        number.add_(1)


def _judged(item: DraftItem) -> Judged:
    return Judged(item.sampler, item.tokens, item.prompt_length, [])
