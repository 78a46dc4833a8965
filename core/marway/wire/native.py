"""What a sidecar and a runtime with the engine `native` say to one another, and how a sidecar speaks to its workers.

Over `runtime.sock` (`marway.wire.runtime`), beside what every runtime answers there: `GET /models` answers
`LoadedModels`; `PUT /models/{server name}` with a `LoadRequest` loads a version, `PUT /models/{server name}/workers`
with a `ScaleRequest` sets the number of its workers, `GET /models/{server name}` describes it: each answers a
`ModelState`. `DELETE /models/{server name}` unloads it. What is not done is told as a `Refusal`: 404 for a version that
is not there, 409 when the runtime is another than the caller believes (`BOOT_HEADER`), 422 when a version cannot be
loaded, 507 when its archive finds no room on the disk.

Each worker serves a Unix socket (`worker_socket`), which is there while it is ready. What travels over it are frames
(`marway_http.frames`) without heads, whose bodies are envelopes (`marway.wire.envelope`) of any size below 4 GiB:
`REQUEST` with rows, `ANSWER` with their answers, `PART` with a piece of an answer that comes in pieces, `CANCEL` when
nobody waits for the answer: a call that has begun goes on to its end, unless the worker takes several at once, which
gives it up. The worker begins with a `WINDOW_UPDATE` of the number 0, when it takes calls of that
connection: until then nobody may have accepted it but the kernel. Any number of calls may be under way; a worker begins
them in the order in which they come.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from marway.stored import Frozen

__all__ = [
    "BOOT_HEADER",
    "ENGINE",
    "FRAME_BYTES_MAX",
    "LoadRequest",
    "LoadedModels",
    "ModelState",
    "Refusal",
    "ScaleRequest",
    "worker_socket",
]

ENGINE: Final = "native"
"""Its name, in `runtime.json` and of the backend that speaks to it."""
BOOT_HEADER: Final = "x-marway-boot-id"
"""Header by which a caller says which start of the runtime it means."""
FRAME_BYTES_MAX: Final = 2**32 - 1


class LoadRequest(Frozen):
    """A version that is to be loaded.

    Attributes:
        name, version: What people call it; the archive must say the same version.
        archive: Its file's name in the model store.
        workers: Worker processes to start.
        load_timeout_s: How long a worker may take to come up, where the archive says nothing (`startupTimeout`).
        predict_timeout_s: How long one call may take before its worker is started again, where the archive says
            nothing (`responseTimeout`).
        share_weights: Whether its workers may be forked from one process that has loaded it: it has golden answers that
            would show what that breaks, and may have several workers.
        sequences: Whether its record says that its handler keeps sequences.
    """

    name: str
    version: str
    archive: str
    workers: int
    load_timeout_s: float
    predict_timeout_s: float
    share_weights: bool = False
    sequences: bool = False


class ScaleRequest(Frozen):
    """How many workers a version is to have."""

    workers: int


class ModelState(Frozen):
    """A version that is loaded: how many workers it is to have, and how many of them are ready.

    Attributes:
        answer_within_s: How long one call may take before its worker is started again.
        calls_per_worker: How many calls a worker takes at once, each of one row where it is more than one.
        in_pieces: Whether every answer comes in pieces.
    """

    version: str
    workers: int
    ready_workers: int
    answer_within_s: float
    calls_per_worker: int = 1
    in_pieces: bool = False


class LoadedModels(Frozen):
    """Every version that is loaded, by its name in the runtime."""

    server_names: tuple[str, ...] = ()


class Refusal(Frozen):
    """Why something was not done."""

    message: str


def worker_socket(runtime_dir: Path, server_name: str, number: int) -> Path:
    """Return the socket of a version's worker; the numbers of a version with N workers are 0 to N-1."""
    return runtime_dir / "sockets" / f"{server_name}.{number}.sock"
