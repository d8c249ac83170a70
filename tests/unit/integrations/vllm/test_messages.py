from __future__ import annotations

import msgspec
import pytest

from gateway.backends.vllm import messages as read
from wetink_vllm import messages as published
from wetink_vllm.messages import joined_id


@pytest.mark.parametrize("name", ["Piece", "Update", "Frame"])
def test_gateway_reads_the_fields_that_the_plugin_publishes(name: str) -> None:
    def fields(module: object) -> list[tuple[str, str]]:
        struct = getattr(module, name)
        return [
            (field.encode_name, repr(field.type).split(".")[-1])
            for field in msgspec.structs.fields(struct)
        ]

    assert fields(read) == fields(published)
    assert read.VERSION == published.VERSION


def test_gateway_refuses_another_version_of_the_protocol() -> None:
    with pytest.raises(read.UnknownVersion, match="version 2"):
        read.decode(msgspec.msgpack.encode({"v": 2, "anything": True}))


@pytest.mark.parametrize(
    "request_id",
    [
        "chatcmpl-wetink-0123456789abcdef0123456789abcdef-1a2b3c4d",
        "cmpl-wetink-0123456789abcdef0123456789abcdef-0-1a2b3c4d",
        "0_chatcmpl-wetink-0123456789abcdef0123456789abcdef-1a2b3c4d",
    ],
)
def test_request_is_found_by_the_name_its_reader_gave_it(request_id: str) -> None:
    assert joined_id(request_id) == "wetink-0123456789abcdef0123456789abcdef"


def test_request_of_somebody_else_has_no_name() -> None:
    assert joined_id("chatcmpl-0123456789abcdef0123456789abcdef-1a2b3c4d") is None
