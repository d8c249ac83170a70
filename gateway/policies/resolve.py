"""From what a client wrote to a policy: objects, short forms, profiles' names."""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING, get_args

import msgspec

from gateway.policies.budget import Budget
from gateway.policies.chunk import ChunkPart
from gateway.policies.graphemes import GraphemeSafePart
from gateway.policies.hold import HoldPart
from gateway.policies.locales import is_locale
from gateway.policies.retract import RetractPart
from protocol.codec import MALFORMED
from protocol.errors import ErrorCode, PolicyError, RequestError
from protocol.events import OffsetUnit, PartKind
from protocol.refusals import malformed, quoted, refusal
from protocol.repeated_names import refuse_repeated_names_json
from protocol.requests import Chunk, ChunkUnit, Hold, PolicySpec, Shape, StreamRetract

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from gateway.policies.base import PartPolicy
    from protocol.ledger import PartLedger
    from protocol.policy import Told, View

logger = logging.getLogger("wetink.policies")

KINDS = ("hold", "retract", "chunk")
CHUNK_UNITS: tuple[str, ...] = get_args(ChunkUnit)
_MAX_TAIL = r"[1-9][0-9]{0,8}"
_BUDGET = r"0\.[0-9]{0,8}[1-9]"


def resolve_policy(
    wanted: PolicySpec | str | None, profiles: Mapping[str, PolicySpec], default: str
) -> PolicySpec:
    """The policy meant by `wanted`; None means the profile `default`.

    Raises RequestError (`policy`) naming what is allowed.
    """
    match wanted:
        case None:
            return profiles[default]
        case str() if wanted.startswith("{"):
            return resolve_policy(_from_json(wanted), profiles, default)
        case str():
            return _from_name(wanted, profiles)
        case Chunk(locale=locale) if not is_locale(locale):
            raise RequestError(
                ErrorCode.INVALID_VALUE,
                f"policy.locale must be a BCP 47 tag of a known language, such as en, pt-BR or "
                f"zh-Hant-TW, not {quoted(locale)}",
                "policy.locale",
            )
        case _:
            return wanted


def short_forms(profiles: Iterable[str]) -> str:
    """Every policy that is not an object, profiles' names included, as an unanchored pattern for
    schemas.
    """
    budget = f"retract:{_BUDGET}"
    chunks = f"chunk:({'|'.join(CHUNK_UNITS)})"
    return "|".join([*KINDS, f"retract:{_MAX_TAIL}", budget, chunks, *map(re.escape, profiles)])


def _from_json(text: str) -> PolicySpec:
    """A whole policy object, where only a string fits (a query string)."""
    try:
        raw = msgspec.json.decode(text)
    except MALFORMED as error:
        problem = malformed(error, text, whole="policy").message
        raise RequestError(ErrorCode.INVALID_VALUE, problem, "policy") from None
    try:
        refuse_repeated_names_json(text)
        return msgspec.convert(raw, PolicySpec)
    except msgspec.ValidationError as error:
        refused = refusal(error, raw, PolicySpec, "policy")
    except RequestError as error:
        refused = error
    param = "policy" if refused.param is None else f"policy.{refused.param}"
    raise RequestError(refused.code, refused.message, param)


def _from_name(name: str, profiles: Mapping[str, PolicySpec]) -> PolicySpec:
    if name in profiles:
        return profiles[name]
    kind, colon, argument = name.partition(":")
    match kind:
        case "hold" if not colon:
            return Hold()
        case "retract" if not colon:
            return StreamRetract()
        case "retract" if re.fullmatch(_MAX_TAIL, argument):
            return StreamRetract(max_tail=int(argument))
        case "retract" if re.fullmatch(_BUDGET, argument):
            return StreamRetract(budget=float(argument))
        case "chunk" if not colon:
            return Chunk()
        case "chunk" if argument in CHUNK_UNITS:
            return msgspec.convert({"kind": "chunk", "unit": argument}, Chunk)
        case _:
            raise RequestError(ErrorCode.INVALID_VALUE, _allowed(name, profiles), "policy")


def _allowed(name: str, profiles: Mapping[str, PolicySpec]) -> str:
    units = ", ".join(CHUNK_UNITS)
    return (
        f"policy {quoted(name)} is unknown; allowed are 'hold', 'retract', 'retract:<max tail>', "
        f"'retract:<budget, as 0.05>', 'chunk', 'chunk:<unit>' with unit one of {units}, or a "
        "profile: " + ", ".join(sorted(profiles))
    )


def describe_policy(spec: PolicySpec) -> dict[str, object]:
    """The policy as `open` reports it: every field that is set, defaults included."""
    fields = {name: getattr(spec, name) for name in spec.__struct_fields__}
    return {
        "kind": str(spec.__struct_config__.tag),
        **{
            name: msgspec.structs.asdict(value) if isinstance(value, Shape) else value
            for name, value in fields.items()
            if value is not None
        },
    }


class SpecPolicy:
    """A policy object after a spec: fresh state for each part.

    Arguments of tool calls are held until verified whatever was chosen for the text: half a call
    helps nobody.
    """

    def __init__(self, spec: PolicySpec, unit: OffsetUnit = OffsetUnit.CODEPOINT) -> None:
        """`unit`: what the reader counts offsets in."""
        self._described = describe_policy(spec)
        self._unit = unit
        self._spec = spec
        self._part: int | None = None
        self._current: PartPolicy = HoldPart()
        match spec:
            case StreamRetract(budget=float(budget)) if budget < 1.0:
                self._budget = Budget(budget, unit)
            case _:
                self._budget = None

    @property
    def described(self) -> dict[str, object]:
        return self._described

    @property
    def wants_drafts(self) -> bool:
        match self._spec:
            case Hold():
                return False
            case StreamRetract():
                return True
            case Chunk(tail=tail):
                return tail

    @property
    def heeds_told(self) -> bool:
        """A budget is weighed against what the reader was told so far."""
        return self._budget is not None

    def view(self, part: PartLedger, now: float, told: Told | None) -> View:
        try:
            if part.index != self._part:
                self._part = part.index
                self._current = self._for_kind(part.kind)
            if self._budget is not None and told is not None:
                self._budget.weigh(part, told)
            return self._current.view(part, now)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # a panic in a library in Rust is no Exception
            logger.exception("policy %s failed", self._described)
            raise PolicyError(
                f"the policy {self._described['kind']} failed on this text; the stream goes on, "
                "attach with another policy"
            ) from error

    def _for_kind(self, kind: str) -> PartPolicy:
        if kind == PartKind.TOOL_CALL:
            return HoldPart()
        inner: PartPolicy
        match self._spec:
            case Hold():
                inner = HoldPart()
            case StreamRetract(max_tail=max_tail):
                inner = RetractPart(max_tail, self._unit, self._budget)
            case Chunk():
                inner = ChunkPart(self._spec)
        return GraphemeSafePart(inner) if self._spec.grapheme_safe else inner
