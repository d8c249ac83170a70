"""Every key of the configuration, from the structs that read it: type, default, unit, text."""

from __future__ import annotations

import ast
import inspect
import textwrap
from typing import Any, NamedTuple, TypeAlias, cast

import msgspec
from msgspec import inspect as types

from gateway.backends.local.settings import EngineConfig
from gateway.config import ENV_PREFIX, UPSTREAMS, GatewayConfig
from gateway.config.upstreams import UpstreamConfig

UNITS = {"_s": "seconds", "_ms": "milliseconds", "_bytes": "bytes", "_mib": "MiB"}
"""By the end of a key's name."""
_Struct: TypeAlias = type[msgspec.Struct]


class Setting(NamedTuple):
    """One key."""

    section: str
    name: str
    type: str
    """In TOML's words, with what is allowed."""
    default: object
    unit: str | None
    text: str
    """What it means."""
    in_environment: bool
    """Whether a variable can set it."""

    @property
    def key(self) -> str:
        return f"{self.section}.{self.name}"

    @property
    def variable(self) -> str:
        return f"{ENV_PREFIX}{self.section}_{self.name}".upper()


class Section(NamedTuple):
    """One table of the file."""

    name: str
    text: str
    settings: list[Setting]

    @property
    def is_repeated(self) -> bool:
        """There may be several of it: a table `[[…]]` each."""
        return self.name == UPSTREAMS


def sections() -> list[Section]:
    """All there are, in the order of the file."""
    return [
        _section(
            each.name,
            UpstreamConfig if each.name == UPSTREAMS else cast("_Struct", type(each.default)),
        )
        for each in msgspec.structs.fields(GatewayConfig)
    ]


def _section(name: str, struct: _Struct) -> Section:
    # The gateway only passes the engine's section on: what it means is said there.
    described: _Struct = EngineConfig if name == "engine" else struct
    texts = _texts(described)
    by_name = {field.name: field for field in msgspec.structs.fields(described)}
    settings = [
        Setting(
            name,
            field.name,
            _words(types.type_info(by_name[field.name].type)),
            _default(by_name[field.name]),
            next((unit for end, unit in UNITS.items() if field.name.endswith(end)), None),
            texts.get(field.name, ""),
            field.name != "profiles" and name != UPSTREAMS,
        )
        for field in msgspec.structs.fields(struct)
    ]
    return Section(name, _joined(inspect.getdoc(described) or ""), settings)


def _default(field: msgspec.structs.FieldInfo) -> object:
    """Every key has one; that of a list is made anew each time."""
    if field.default is not msgspec.NODEFAULT:
        return field.default
    assert callable(field.default_factory), field.name
    return field.default_factory()


def _texts(struct: _Struct) -> dict[str, str]:
    """The strings that stand under the fields in the struct's source."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(struct)))
    definition = tree.body[0]
    assert isinstance(definition, ast.ClassDef)
    found: dict[str, str] = {}
    for field, text in zip(definition.body, definition.body[1:], strict=False):
        match field, text:
            case (
                ast.AnnAssign(target=ast.Name(id=name)),
                ast.Expr(value=ast.Constant(value=str(words))),
            ):
                found[name] = _joined(words)
            case _:
                pass
    return found


def _joined(text: str) -> str:
    return " ".join(text.split())


def _words(kind: types.Type) -> str:
    """A type as an operator writes it."""
    match kind:
        case types.UnionType(types=several):
            return " or ".join(_words(each) for each in several if not _is_none(each))
        case types.Metadata(type=inner):
            return _words(inner)
        case types.BoolType():
            return "true or false"
        case types.IntType(ge=least, le=most):
            return f"whole number{_bounds(least, most)}"
        case types.FloatType(gt=over, ge=least, le=most):
            return f"number{f' over {over:g}' if over is not None else _bounds(least, most)}"
        case types.StrType():
            return "string"
        case types.LiteralType(values=values):
            return " or ".join(
                f'"{each}"' if isinstance(each, str) else str(each) for each in values
            )
        case types.ListType(item_type=item) | types.VarTupleType(item_type=item):
            plural = "" if isinstance(item, types.LiteralType) else "s"
            return f"list of {_words(item)}{plural}"
        case types.DictType(value_type=types.StrType()):
            return "table of strings"
        case types.DictType():
            return "table of policies"
        case _:
            raise TypeError(f"no words for {kind}")


def _is_none(kind: types.Type) -> bool:
    return isinstance(kind, types.NoneType)


def _bounds(least: float | None, most: float | None) -> str:
    match least, most:
        case None, None:
            return ""
        case _, None:
            return f" ≥ {least:g}"
        case _:
            return f", {least or 0:g} … {most:g}"


def toml(value: Any) -> str:
    """A value as TOML writes it; tables in one line."""
    match value:
        case dict():
            table = cast("dict[str, Any]", value)
            pairs = ", ".join(f"{_bare(name)} = {toml(each)}" for name, each in table.items())
            return f"{{ {pairs} }}" if pairs else "{}"
        case list() | tuple():
            return f"[{', '.join(map(toml, cast('list[Any]', value)))}]"
        case _:
            # JSON's strings, numbers and booleans are TOML's as well.
            return msgspec.json.encode(value).decode()


def _bare(name: str) -> str:
    is_bare = name.isascii() and name.replace("-", "").replace("_", "").isalnum()
    return name if is_bare else msgspec.json.encode(name).decode()
