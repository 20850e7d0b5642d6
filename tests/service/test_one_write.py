import asyncio

import pytest
import uvicorn
from uvicorn.server import ServerState

from service.one_write import JoinedWrites, OneWriteProtocol

HEAD = b"HTTP/1.1 200 OK\r\n\r\n"


class Wire(asyncio.Transport):
    """A transport that notes what reaches it."""

    def __init__(self) -> None:
        super().__init__({"peername": ("127.0.0.1", 1)})
        self.sent: list[bytes] = []
        self.closed = False

    def write(self, data):
        self.sent.append(bytes(data))

    def is_closing(self):
        return self.closed

    def close(self):
        self.closed = True


@pytest.fixture
def wire():
    return Wire()


def test_a_head_leaves_with_what_follows_and_the_rest_by_itself(wire):
    joined = JoinedWrites(wire)
    joined.write(HEAD)
    assert wire.sent == []
    for part in (b"first", b"second"):
        joined.write(part)
    assert wire.sent == [HEAD + b"first", b"second"]


def test_a_body_that_looks_like_a_head_is_not_kept(wire):
    joined = JoinedWrites(wire)
    joined.write(HEAD)
    joined.write(HEAD)
    assert wire.sent == [HEAD + HEAD]


def test_who_waits_to_be_told_to_go_on_is_told_at_once(wire):
    async def app(scope, receive, send):
        length = len((await receive())["body"])
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"1")]})
        await send({"type": "http.response.body", "body": b"%d" % length})

    async def main() -> None:
        config = uvicorn.Config(app, log_level="warning")
        config.load()
        protocol = OneWriteProtocol(config, ServerState(), {})
        protocol.connection_made(wire)
        head = b"POST / HTTP/1.1\r\nHost: test\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n"
        protocol.data_received(head)
        await asyncio.sleep(0)
        assert wire.sent == [b"HTTP/1.1 100 Continue\r\n\r\n"]
        protocol.data_received(b"abc")
        await asyncio.gather(*protocol.tasks)
        assert wire.sent[1].endswith(b"\r\n\r\n3")

    asyncio.run(main())


def test_closing_sends_a_lonely_head_first(wire):
    joined = JoinedWrites(wire)
    joined.write(HEAD)
    joined.close()
    assert (wire.sent, wire.closed) == ([HEAD], True)
    assert joined.get_extra_info("peername") == ("127.0.0.1", 1)


@pytest.mark.parametrize(("method", "length"), [("GET", 4), ("HEAD", 4), ("GET", 0)])
def test_an_answer_is_one_write_with_or_without_a_body(wire, method, length):
    async def app(scope, receive, send):
        headers = [(b"content-length", str(length).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"b" * length})

    async def main() -> None:
        config = uvicorn.Config(app, log_level="warning")
        config.load()
        protocol = OneWriteProtocol(config, ServerState(), {})
        protocol.connection_made(wire)
        protocol.data_received(f"{method} / HTTP/1.1\r\nHost: test\r\n\r\n".encode())
        await asyncio.gather(*protocol.tasks)

    asyncio.run(main())
    (answer,) = wire.sent
    assert answer.startswith(b"HTTP/1.1 200 OK")
    assert answer.endswith(b"\r\n\r\n" if method == "HEAD" else b"\r\n\r\n" + b"b" * length)
