"""Packs that are interrupted, killed, or run beside one another."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from marway.errors import InvalidArchive
from marway_archiver import check_archive, pack

Arguments = Callable[..., dict[str, Any]]
Child = Callable[..., "subprocess.Popen[str]"]

BLOCKED = """
import json, signal, sys, threading
from marway_archiver import pack

# Whoever runs the tests may have these ignored (nohup, a shell's background job), and a child inherits that.
signal.signal(signal.SIGHUP, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)
stuck = threading.Event()

def block(done, total):
    print("packing", flush=True)
    while True:
        stuck.wait(0.05)  # not signal.pause(): a signal just before it would be waited for for ever

pack(**json.loads(sys.argv[1]), progress=block)
"""

REPEATED = """
import json, sys
from marway.errors import InvalidArchive
from marway_archiver import pack
given = json.loads(sys.argv[1])
done = []
for _ in range(int(sys.argv[2])):
    try:
        done.append(pack(**given).sha256)
    except InvalidArchive as exc:
        done.append(exc.message)
print(json.dumps(done))
"""

MEASURED = """
import json, resource, sys
from marway_archiver import check_archive, pack
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
packed = pack(**json.loads(sys.argv[1]))
check_archive(packed.path)
unit = 1 if sys.platform == "darwin" else 1024
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * unit)
"""


def as_json(arguments: dict[str, Any]) -> str:
    return json.dumps({key: str(value) if isinstance(value, Path) else value for key, value in arguments.items()})


def visible(directory: Path) -> list[str]:
    return sorted(file.name for file in directory.iterdir() if not file.name.startswith("."))


@pytest.mark.parametrize("archive_format", ["default", "no-archive"])
def test_kill_leaves_nothing_visible(arguments: Arguments, child: Child, tmp_path: Path, archive_format: str) -> None:
    """A killed pack leaves one hidden file, which the next removes; one that still runs keeps its own."""
    given = arguments(archive_format=archive_format)
    process = child(BLOCKED, as_json(given))
    assert process.stdout is not None
    assert process.stdout.readline() == "packing\n"
    other = pack(**arguments(model_name="other"))
    assert len(list((tmp_path / "out").iterdir())) == 2
    process.kill()
    process.communicate()
    assert visible(tmp_path / "out") == ["other.mar"]
    assert len(list((tmp_path / "out").iterdir())) == 2
    packed = pack(**given)
    assert sorted((tmp_path / "out").iterdir()) == [packed.path, other.path]


@pytest.mark.parametrize("archive_format", ["default", "no-archive"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_leaves_nothing(
    arguments: Arguments, child: Child, tmp_path: Path, number: signal.Signals, archive_format: str
) -> None:
    """A pack that is told to stop removes what it wrote, and its process ends by that signal."""
    process = child(BLOCKED, as_json(arguments(archive_format=archive_format)))
    assert process.stdout is not None
    assert process.stdout.readline() == "packing\n"
    process.send_signal(number)
    process.communicate(timeout=30)
    assert process.returncode == -number
    assert not list((tmp_path / "out").iterdir())


def test_an_exception_leaves_nothing(arguments: Arguments, tmp_path: Path) -> None:
    """Whatever is raised while packing, nothing stays, and signals are as they were."""

    def interrupt(_done: int, _total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pack(**arguments(progress=interrupt))
    assert not list((tmp_path / "out").iterdir())
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_an_archive_that_appears_meanwhile_is_kept(arguments: Arguments, tmp_path: Path) -> None:
    """Without force, a file that appears under the name while packing wins, and is not touched."""
    other = tmp_path / "out" / "digits.mar"
    with pytest.raises(InvalidArchive, match="--force"):
        pack(**arguments(progress=lambda done, total: other.write_bytes(b"mine")))
    assert other.read_bytes() == b"mine"
    assert [file.name for file in other.parent.iterdir()] == ["digits.mar"]


def test_parallel_packs_of_one_name(
    arguments: Arguments, child: Child, tmp_path: Path, fresh_inputs: Callable[[Path], Path]
) -> None:
    """Of parallel packs of one name exactly one wins; with force each succeeds and the file is always whole."""
    sources = []
    for number in range(4):
        root = fresh_inputs(tmp_path / f"in{number}")
        (root / "weights.pt").write_bytes(bytes([number]) * 300_000)
        sources.append({"handler": str(root / "handler.py"), "serialized_file": str(root / "weights.pt")})
    few = {"model_file": None, "extra_files": None, "requirements_file": None, "config_file": None}
    started = [child(REPEATED, as_json(arguments(**few, **source)), "1") for source in sources]
    results = [json.loads(process.communicate(timeout=60)[0])[0] for process in started]
    assert sum("--force" in result for result in results) == 3
    started = [child(REPEATED, as_json(arguments(**few, **source, force=True)), "20") for source in sources]
    digests = set()
    while any(process.poll() is None for process in started):
        digests.add(check_archive(tmp_path / "out" / "digits.mar").sha256)
    packed = [set(json.loads(process.communicate(timeout=60)[0])) for process in started]
    assert all(len(each) == 1 for each in packed)
    assert digests <= set().union(*packed)
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["digits.mar"]


def test_memory_is_flat(arguments: Arguments, child: Child, inputs: Path) -> None:
    """Packing and checking 256 MiB of weights takes less than 64 MiB of memory."""
    with (inputs / "weights.pt").open("wb") as file:
        file.truncate(256 << 20)
    process = child(MEASURED, as_json(arguments()))
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert int(out) < 64 << 20
