"""A request's body: whole, in parts, or cut off by a client that left."""

import asyncio

import pytest
from starlette.requests import ClientDisconnect, Request

from service.body import content


def reading(*messages: dict[str, object]) -> bytes:
    left = list(messages)

    async def receive() -> dict[str, object]:
        return left.pop(0)

    return asyncio.run(content(Request({"type": "http"}, receive)))


def part(body: bytes, more: bool) -> dict[str, object]:
    return {"type": "http.request", "body": body, "more_body": more}


def test_a_body_is_its_parts_in_order():
    assert reading(part(b"whole", False)) == b"whole"
    assert reading(part(b"a", True), part(b"", True), part(b"b", False)) == b"ab"
    assert reading({"type": "http.request"}) == b""


def test_a_client_that_leaves_within_its_body_has_sent_none():
    with pytest.raises(ClientDisconnect):
        reading(part(b"a", True), {"type": "http.disconnect"})
