"""What every backend owes the rest of the sidecar, as checks that run over any implementation.

A test of a backend gives a `Subject`, and runs each of `CHECKS` over it with `run_check` (docs/backends.md). The manner
is that of trio's `check_two_way_stream` (https://trio.readthedocs.io/en/stable/reference-testing.html).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, Protocol

from marway.deadline import Deadline
from marway.errors import DeadlineExceeded, LoadFailed, MarwayError, ModelError, RuntimeDown, Unavailable
from marway.wire.envelope import Answer, Part, Row
from marway_sidecar.backends.base import Backend, ModelServer, NotLoaded, ServedModel, WorkerDied

__all__ = ["CHECKS", "Check", "Subject", "run_check"]

_PATIENCE_S: Final = 60.0
_MOMENT_S: Final = 0.3
"""For what was begun to reach a worker; a check holds, if it says less, when that takes longer."""
_POLL_S: Final = 0.02


class Subject(Protocol):
    """A backend under test.

    Its models do what the text of a row says: `say TEXT` answers with the text; `fail` fails; `wait FILE` answers with
    `waited` once the file is there; `die` ends the worker without an answer; `pieces FILE` sends `one` and, once the
    file is there, `two`, of a streaming model.

    """

    streams: bool  # if not, the whole answer is the one piece
    workers_die: bool  # alone, without the server; if not, `die` is never said

    @property
    def backend(self) -> Backend:
        """The backend, whose server is up."""

    def model(self, name: str, *, streaming: bool = False, broken: bool = False) -> ServedModel:
        """Return a version with a name of its own in the server, with one worker; a ``broken`` one cannot be loaded."""

    async def restart(self) -> None:
        """End the server hard, and return when another is there in its place."""


Check = Callable[[Subject, ModelServer, Path], Awaitable[None]]


async def run_check(check: Check, subject: Subject) -> None:
    """Run one of `CHECKS` and clean up after it.

    Raises:
        AssertionError: The backend does not do what it has to.
    """
    server = subject.backend.connect()
    assert server is not None, subject.backend.trouble(found=False)
    try:
        assert await server.is_same(timeout_s=_PATIENCE_S), "a server that was just found was restarted"
        with TemporaryDirectory(prefix="marway-contract-") as directory:
            await check(subject, server, Path(directory))
    finally:
        await server.aclose()
        await server.aclose()


async def check_names(subject: Subject, server: ModelServer, directory: Path) -> None:
    """A backend serves its own archives, and its server says which backend's it loads and in which version it is."""
    backend = subject.backend
    assert backend.name in backend.serves
    assert server.serves == backend.serves
    assert server.info.boot_id
    assert backend.name in server.info.versions
    assert all(backend.trouble(found=found) for found in (False, True))
    assert backend.stamp() == backend.stamp()


async def check_load(subject: Subject, server: ModelServer, directory: Path) -> None:
    """A version is there once loaded, once however often that is asked, and gone once unloaded."""
    model = subject.model("load")
    assert await server.describe(model) is None
    for found in await asyncio.gather(*(server.load(model) for _ in range(3))):
        assert (found.version, found.workers, found.ready_workers) == (model.version, 1, 1)
    assert await server.describe(model) == await server.load(model)
    status = await server.status()
    assert model.server_name in status.server_names
    assert [worker.server_name for worker in status.workers].count(model.server_name) == 1
    await server.unload(model)
    await server.unload(model)
    assert await server.describe(model) is None
    assert model.server_name not in (await server.status()).server_names


async def check_failed_load(subject: Subject, server: ModelServer, directory: Path) -> None:
    """A version that cannot be loaded is refused with a reason, and nothing of it stays."""
    model = subject.model("broken", broken=True)
    error = await _error(server.load(model))
    assert isinstance(error, LoadFailed), error
    assert error.message
    assert (error.model, error.version) == (model.name, model.version)
    assert await server.describe(model) is None
    assert model.server_name not in (await server.status()).server_names


async def check_scale(subject: Subject, server: ModelServer, directory: Path) -> None:
    """A version has the workers that it was given, also none, or those that the server keeps, and answers with some."""
    async with _loaded(server, subject.model("scale")) as model:
        described = await server.describe(model)
        assert described is not None
        for workers in (2, 0, 1) if described.scales else (1,):
            found = await server.scale(model, workers)
            assert (found.workers, found.ready_workers) == (workers, workers)
            assert await server.describe(model) == found
            if workers:
                assert await _say(server, model, "here") == "here"


async def check_answers(subject: Subject, server: ModelServer, directory: Path) -> None:
    """Rows are answered in their order, in one call where the server batches, and in many at a time."""
    words = [f"word-{number}" for number in range(8)]
    async with _loaded(server, subject.model("answers")) as model:
        if server.batches:
            answers = await server.predict(model, [_row(f"say {word}") for word in words], Deadline.after(_PATIENCE_S))
            assert [answer.body.decode() for answer in answers] == words
            assert {answer.status for answer in answers} == {200}
        assert await asyncio.gather(*(_say(server, model, word) for word in words)) == words


async def check_failing_row(subject: Subject, server: ModelServer, directory: Path) -> None:
    """A row that fails is the model's error, and the worker answers the next."""
    async with _loaded(server, subject.model("failing")) as model:
        try:
            failed = (await _ask(server, model, "fail")).kind == "error"
        except ModelError:
            failed = True
        assert failed
        assert await _say(server, model, "after") == "after"


async def check_not_loaded(subject: Subject, server: ModelServer, directory: Path) -> None:
    """A version that is not there is told as such, for an answer and for one in pieces."""
    model = subject.model("nobody", streaming=True)
    assert isinstance(await _error(_ask(server, model, "say x")), NotLoaded)
    assert isinstance(await _error(_pieces(server, model, "say x")), NotLoaded)


async def check_deadline(subject: Subject, server: ModelServer, directory: Path) -> None:
    """A deadline that passes, before the call or during it, is told as such, and the next call has its own answer."""
    gate = directory / "gate"
    async with _loaded(server, subject.model("deadline")) as model:
        for seconds in (0.0, _MOMENT_S):
            error = await _error(_ask(server, model, f"wait {gate}", seconds))
            assert isinstance(error, DeadlineExceeded), error
        gate.touch()
        assert await _say(server, model, "next") == "next"


async def check_cancel(subject: Subject, server: ModelServer, directory: Path) -> None:
    """A call that is given up ends at once, and the next call has its own answer."""
    gate = directory / "gate"
    async with _loaded(server, subject.model("cancel")) as model:
        call = asyncio.ensure_future(_ask(server, model, f"wait {gate}"))
        await asyncio.wait({call}, timeout=_MOMENT_S)
        call.cancel()
        await asyncio.wait({call}, timeout=_PATIENCE_S)
        assert call.cancelled()
        gate.touch()
        assert await _say(server, model, "next") == "next"


async def check_stream(subject: Subject, server: ModelServer, directory: Path) -> None:
    """Pieces come in order, the first before the last is made; asked for as one, they come as one."""
    gate = directory / "gate"
    async with _loaded(server, subject.model("stream", streaming=True)) as model, asyncio.timeout(_PATIENCE_S):
        async with aclosing(_stream(server, model, f"pieces {gate}")) as pieces:
            if subject.streams:
                assert (await anext(pieces)).body == b"one"
            gate.touch()
            assert [piece.body async for piece in pieces] == [b"two" if subject.streams else b"onetwo"]
        assert (await _ask(server, model, f"pieces {gate}")).body == b"onetwo"


async def check_stream_that_is_left(subject: Subject, server: ModelServer, directory: Path) -> None:
    """Who leaves a stream in its middle harms nobody: the next call is answered."""
    if not subject.streams:
        return
    gate = directory / "gate"
    async with _loaded(server, subject.model("left", streaming=True)) as model, asyncio.timeout(_PATIENCE_S):
        async with aclosing(_stream(server, model, f"pieces {gate}")) as pieces:
            assert (await anext(pieces)).body == b"one"
        gate.touch()
        assert await _pieces(server, model, f"pieces {gate}") == [b"one", b"two"]


async def check_death_of_a_worker(subject: Subject, server: ModelServer, directory: Path) -> None:
    """A worker that dies takes its call with it, which is told so, and another one answers in its place."""
    if not subject.workers_die:
        return
    async with _loaded(server, subject.model("death")) as model:
        error = await _error(_ask(server, model, "die"))
        assert isinstance(error, WorkerDied), error
        async with asyncio.timeout(_PATIENCE_S):
            error = await _error(_say(server, model, "alive"))
            while isinstance(error, Unavailable):
                await asyncio.sleep(_POLL_S)
                error = await _error(_say(server, model, "alive"))
        assert error is None


async def check_unload_while_busy(subject: Subject, server: ModelServer, directory: Path) -> None:
    """A call whose version is unloaded under it ends by its deadline, and the version can be loaded again."""
    async with _loaded(server, subject.model("busy")) as model:
        call = asyncio.ensure_future(_ask(server, model, f"wait {directory / 'never'}", 3.0))
        await asyncio.wait({call}, timeout=_MOMENT_S)
        await server.unload(model)
        assert isinstance(await _error(asyncio.wait_for(call, _PATIENCE_S)), MarwayError)
        assert await server.describe(model) is None
        await server.load(model)
        assert await _say(server, model, "again") == "again"


async def check_restart(subject: Subject, server: ModelServer, directory: Path) -> None:
    """A server that was restarted is told from the one before, has nothing of it, and takes the version again."""
    model = subject.model("restart")
    await server.load(model)
    await subject.restart()
    error = await _error(_ask(server, model, "say x"))
    assert isinstance(error, (NotLoaded, RuntimeDown)), error
    after = subject.backend.connect()
    assert after is not None
    try:
        assert await after.is_same(timeout_s=_PATIENCE_S)
        assert after.info.boot_id != server.info.boot_id
        assert model.server_name not in (await after.status()).server_names
        assert await after.describe(model) is None
        async with _loaded(after, model):
            assert await _say(after, model, "again") == "again"
    finally:
        await after.aclose()


CHECKS: Final[Sequence[Check]] = (
    check_names,
    check_load,
    check_failed_load,
    check_scale,
    check_answers,
    check_failing_row,
    check_not_loaded,
    check_deadline,
    check_cancel,
    check_stream,
    check_stream_that_is_left,
    check_death_of_a_worker,
    check_unload_while_busy,
    check_restart,
)


@asynccontextmanager
async def _loaded(server: ModelServer, model: ServedModel) -> AsyncIterator[ServedModel]:
    await server.load(model)
    yield model
    await server.unload(model)


def _row(text: str) -> Row:
    return Row("contract", [Part("data", text.encode(), "text/plain")], {"content-type": "text/plain"})


async def _stream(server: ModelServer, model: ServedModel, text: str) -> AsyncGenerator[Answer, None]:
    async with aclosing(server.predict_stream(model, _row(text), Deadline.after(_PATIENCE_S))) as pieces:
        async for piece in pieces:
            yield piece


async def _ask(server: ModelServer, model: ServedModel, text: str, within_s: float = _PATIENCE_S) -> Answer:
    (answer,) = await server.predict(model, [_row(text)], Deadline.after(within_s))
    return answer


async def _say(server: ModelServer, model: ServedModel, word: str) -> str:
    return (await _ask(server, model, f"say {word}")).body.decode()


async def _pieces(server: ModelServer, model: ServedModel, text: str) -> list[bytes]:
    return [piece.body async for piece in _stream(server, model, text)]


async def _error(call: Awaitable[object]) -> MarwayError | None:
    try:
        await call
    except MarwayError as exc:
        return exc
    return None
