import asyncio

from service.one_write import MOST, JoinedWrites


class Wire(asyncio.Transport):
    """A transport that notes what reaches it."""

    def __init__(self) -> None:
        super().__init__({"peername": "somebody"})
        self.sent: list[bytes] = []
        self.closed = False

    def write(self, data):
        self.sent.append(bytes(data))

    def is_closing(self):
        return self.closed

    def close(self):
        self.closed = True


def run(test):
    async def run() -> None:
        wire = Wire()
        await test(wire, JoinedWrites(wire, asyncio.get_running_loop()))

    asyncio.run(run())


def test_what_one_turn_writes_leaves_together():
    async def test(wire, joined):
        joined.write(b"head ")
        joined.write(b"body")
        assert wire.sent == []
        await asyncio.sleep(0)
        joined.write(b"next")
        await asyncio.sleep(0)
        assert wire.sent == [b"head body", b"next"]

    run(test)


def test_much_is_not_kept_back():
    async def test(wire, joined):
        joined.write(b"head ")
        joined.write(bytes(MOST))
        assert wire.sent == [b"head " + bytes(MOST)]
        await asyncio.sleep(0)
        assert len(wire.sent) == 1

    run(test)


def test_closing_sends_the_rest_first_and_a_lost_connection_is_not_written_to():
    async def test(wire, joined):
        joined.write(b"last")
        joined.close()
        assert (wire.sent, wire.closed) == ([b"last"], True)
        joined.write(b"too late")
        await asyncio.sleep(0)
        assert wire.sent == [b"last"]
        assert joined.get_extra_info("peername") == "somebody"

    run(test)
