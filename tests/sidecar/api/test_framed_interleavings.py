"""The sidecar's end of a connection with frames: whatever meets in one turn, each request ends once."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import partial
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from marway_http.channel import Channel, ClientGone, HeaderBlock
from marway_http.eager import InlineFuture
from marway_http.frames import PART_BYTES, FrameReader, Kind, frame_header
from marway_sidecar.api.framed import FramedConnection

SIZES = (0, 1, PART_BYTES, PART_BYTES + 1, 7 * PART_BYTES)


class Wire(asyncio.Transport):
    """The gateway's end: it keeps what was said, and tells of its end a turn later, as a real one does."""

    def __init__(self) -> None:
        super().__init__()
        self.closing = False
        self.reader = FrameReader()
        self.answers: dict[int, list[bytes]] = {}
        self.declined: list[int] = []
        self.protocol: asyncio.Protocol | None = None

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return ("127.0.0.1", 1) if name == "peername" else default

    def is_closing(self) -> bool:
        return self.closing

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self.closing:
            return
        for kind, number, _, _, body in self.reader.feed(bytes(data)):
            if kind == Kind.ANSWER:
                assert number not in self.answers, "answered twice"
                self.answers[number] = [body]
            elif kind == Kind.PART:
                self.answers[number].append(body)
            else:
                assert kind == Kind.DECLINED
                self.declined.append(number)

    def pause_reading(self) -> None:
        """There is nothing to read that was not given."""

    def resume_reading(self) -> None:
        """As `pause_reading`."""

    def close(self) -> None:
        self.abort()

    def abort(self) -> None:
        if not self.closing:
            self.closing = True
            assert self.protocol is not None
            asyncio.get_running_loop().call_soon(self.protocol.connection_lost, None)


class Asked:
    """One request as the application has it."""

    def __init__(self) -> None:
        self.gone = 0
        self.size: InlineFuture[int] = InlineFuture()
        self.answered: bytes | None = None

    def answer(self, size: int) -> None:
        """Have it answered with so many bytes."""
        if not self.size.done():
            self.size.set_result(size)


class App:
    """Answers every request, when it may, but those whose path says otherwise."""

    def __init__(self) -> None:
        self.asked: dict[int, Asked] = {}

    async def answer_framed(self, path: str, headers: Mapping[str, str], client: str, channel: Channel) -> None:
        if path == "/not":
            return
        if path == "/fails":
            raise ZeroDivisionError
        assert channel.body is not None
        asked = self.asked[int(channel.body)] = Asked()
        channel.when_gone(partial(channel.interrupt, ClientGone()))
        try:
            size = await asked.size
        except asyncio.CancelledError:
            asked.gone += 1
            raise
        finally:
            channel.when_gone(None)
        asked.answered = bytes(size)
        await channel.answer(200, HeaderBlock(b"content-length: %d\r\n" % size, 1), asked.answered)


STEP = st.one_of(
    st.tuples(st.just("ask"), st.sampled_from(["/predict/x", "/not", "/fails"])),
    st.tuples(st.just("answer"), st.tuples(st.integers(0, 5), st.sampled_from(SIZES))),
    st.tuples(st.sampled_from(["cancel", "more"]), st.integers(0, 5)),
    st.tuples(st.sampled_from(["close", "shutdown"]), st.just(0)),
)


@given(turns=st.lists(st.lists(STEP, max_size=6), max_size=12))
@settings(max_examples=150, deadline=None)
def test_each_request_is_answered_or_given_up_once(turns: list[list[tuple[str, Any]]]) -> None:
    """An answer is whole and one's own; who is cancelled, or whose connection ended, is given up once, and no other."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        broken: list[dict[str, Any]] = []
        loop.set_exception_handler(lambda _, context: broken.append(context))
        app, wire, connections = App(), Wire(), set[Any]()
        wire.protocol = connection = FramedConnection(app.answer_framed, connections)
        connection.connection_made(wire)
        sent: dict[int, str] = {}
        cancelled: set[int] = set()

        def come(data: bytes) -> None:
            if not wire.closing:
                connection.data_received(data)

        def turn(steps: list[tuple[str, Any]]) -> None:
            for what, detail in steps:
                match what:
                    case "ask" if not wire.closing:
                        number = len(sent)
                        sent[number] = detail
                        head, body = f"{detail}\r\nhost: x\r\n".encode(), b"%d" % number
                        come(frame_header(Kind.REQUEST, number, head=len(head), body=len(body)) + head + body)
                    case "answer" if app.asked:
                        which, size = detail
                        list(app.asked.values())[which % len(app.asked)].answer(size)
                    case "cancel" if sent and not wire.closing:
                        cancelled.add(detail % len(sent))
                        come(frame_header(Kind.CANCEL, detail % len(sent)))
                    case "more" if sent:
                        come(frame_header(Kind.WINDOW_UPDATE, detail % len(sent), status=1))
                    case "close":
                        wire.abort()
                    case "shutdown":
                        connection.shutdown()

        for steps in turns:
            loop.call_soon(turn, steps)
            await asyncio.sleep(0)
        for number in sent:  # the gateway wants all of what was begun
            come(frame_header(Kind.WINDOW_UPDATE, number, status=100))
        closed = wire.closing
        await asyncio.sleep(0)
        for number, asked in app.asked.items():
            assert asked.gone <= 1
            if asked.answered is not None:
                assert asked.gone == 0
                said = b"".join(wire.answers.get(number, []))
                assert said == asked.answered or closed or number in cancelled
            else:
                assert number not in wire.answers
                assert asked.gone == (number in cancelled or closed)
        if not closed:
            assert wire.declined == [number for number, path in sent.items() if path != "/predict/x"]
        connection.connection_lost(None)
        assert not connections
        assert all(asked.gone <= 1 for asked in app.asked.values())
        assert len(broken) == list(sent.values()).count("/fails")

    asyncio.run(main())
