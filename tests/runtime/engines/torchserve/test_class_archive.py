"""TorchServe starts from an archive of Java's classes; nothing that is wrong with one ever stops a start."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from marway.wire.runtime import LOGS
from marway_runtime.engines.torchserve import class_archive
from marway_runtime.engines.torchserve.class_archive import ClassArchive
from support.cli import marway
from support.runtime import Runtime
from support.up import wait_until

NO_ARCHIVE = {"MARWAY_RUNTIME_SHARE_CLASSES": "false"}


def environment(directory: Path, *java_options: str) -> dict[str, str]:
    options = ",".join(f'"{option}"' for option in java_options)
    return {"MARWAY_RUNTIME_CLASS_ARCHIVES": str(directory), "MARWAY_RUNTIME_JAVA_OPTIONS": f"[{options}]"}


def mapped(runtime: Runtime) -> bool:
    """Whether its Java has mapped an archive of classes."""
    return ".jsa" in Path(f"/proc/{runtime.info.pid}/maps").read_text()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An archive, made by the command that builds of images run."""
    directory = tmp_path_factory.mktemp("java") / "archives"
    done = marway("runtime", "--write-class-archive", MARWAY_RUNTIME_CLASS_ARCHIVES=str(directory))
    assert done.returncode == 0, done.stderr
    (archive,) = directory.glob("*.jsa")
    assert done.stdout.strip() == str(archive)
    return archive


@pytest.fixture
def directory(made: Path, tmp_path: Path) -> Path:
    """A directory of the test's own with that archive."""
    copy = tmp_path / "java" / made.name
    copy.parent.mkdir()
    copy.write_bytes(made.read_bytes())
    return copy.parent


@pytest.mark.extended  # test_the_first_start_writes_it_for_the_next writes one
async def test_two_writers_make_one_archive(tmp_path: Path) -> None:
    """Of two that write at once one does; what a killed one left and other Javas' archives go; a third keeps it."""
    directory = tmp_path / "not" / "made yet"
    first, second = ClassArchive(directory), ClassArchive(directory)
    assert first.options() == []
    directory.mkdir(parents=True)
    for debris in (".classes-killed.jsa", "classes-older.jsa"):
        (directory / debris).touch()
    assert sorted(await asyncio.gather(first.write(home=tmp_path), second.write(home=tmp_path))) == [False, True]
    assert {path.name for path in directory.iterdir()} == {"lock", first.path.name}
    before = first.path.stat().st_mtime_ns
    assert await second.write(home=tmp_path)
    assert first.path.stat().st_mtime_ns == before
    assert f"-XX:SharedArchiveFile={first.path}" in first.options()


async def test_a_writer_that_is_stopped_leaves_nothing(tmp_path: Path) -> None:
    """When the runtime stops, the process that writes is gone at once with its file, and the next may write."""
    archive = ClassArchive(tmp_path)
    writing = asyncio.create_task(archive.write(home=tmp_path))
    while archive.pid is None:
        assert not writing.done()
        await asyncio.sleep(0)
    pid = archive.pid
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    assert not Path(f"/proc/{pid}").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["lock"]
    assert archive.options() == []


async def test_where_nothing_can_be_written_nothing_happens(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A directory that cannot be made is said in the log, and Java gets no option."""
    (tmp_path / "file").touch()
    archive = ClassArchive(tmp_path / "file" / "java")
    caplog.set_level("INFO")
    assert not await archive.write(home=tmp_path)
    assert "no archive of Java's classes can be kept" in caplog.text
    assert archive.options() == []


def test_another_java_and_other_jars_have_archives_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The name of an archive changes with Java, with its release, with the jars and with a jar's size and time."""
    java, jar = tmp_path / "jre" / "bin" / "java", tmp_path / "server.jar"
    java.parent.mkdir(parents=True)
    java.write_text("java")
    jar.write_text("jar")
    monkeypatch.setattr(class_archive, "java", lambda: java)
    monkeypatch.setattr(class_archive, "class_path", lambda: str(jar))

    def name() -> str:
        return ClassArchive(tmp_path).path.name

    names = [name()]
    changes: list[Callable[[], object]] = [
        lambda: (tmp_path / "jre" / "release").write_text('JAVA_VERSION="22"'),
        lambda: jar.write_text("another jar"),
        lambda: os.utime(jar, (1, 1)),
        lambda: java.write_text("another java"),
    ]
    for change in changes:
        change()
        names.append(name())
    os.utime(jar, ns=(1_500_000_000, 1_999_999_999))  # image layers have whole seconds, and so does Java's own check
    assert name() == names[-1]
    assert len(set(names)) == len(changes) + 1


@pytest.mark.extended  # test_the_first_start_writes_it_for_the_next starts from one
@pytest.mark.e2e
def test_java_takes_its_classes_from_the_archive(directory: Path, tmp_path: Path, archives: Path) -> None:
    """At a start with a prediction 95 of 100 classes come from it: else `java_classes.txt` is to be made again."""
    with Runtime(tmp_path / "home", archives, environment(directory, "-Xlog:class+load:stdout")) as runtime:
        runtime.register("model")
        runtime.ask("model")
        assert mapped(runtime)
        text = (runtime.directory / LOGS / "stdout.log").read_text()
        sources = re.findall(r"\[class,load\] (\S+) source: (.+)", text)
    shared = [name for name, source in sources if source.startswith("shared objects file")]
    others = [name for name, source in sources if not source.startswith("shared objects file")]
    assert len(shared) > 4000
    assert len(shared) / len(sources) > 0.95, others


@pytest.mark.extended  # each run of tests starts from one
@pytest.mark.e2e
def test_the_first_start_writes_it_for_the_next(tmp_path: Path, archives: Path) -> None:
    """With no archive TorchServe starts; one is written while it serves, and the next start takes it."""
    env = environment(tmp_path / "java")
    with Runtime(tmp_path / "home", archives, env) as runtime:
        assert not mapped(runtime)
        wait_until(lambda: [*(tmp_path / "java").glob("classes-*.jsa")], timeout_s=60, what="there is an archive")
        assert runtime.stop() == 0
    with Runtime(tmp_path / "home", archives, env) as runtime:
        assert mapped(runtime)


@pytest.mark.extended  # test_the_first_start_writes_it_for_the_next starts from one
@pytest.mark.e2e
def test_sharing_can_be_switched_off(directory: Path, tmp_path: Path, archives: Path) -> None:
    """With share_classes off an archive that is there is not used."""
    with Runtime(tmp_path / "home", archives, environment(directory) | NO_ARCHIVE) as runtime:
        assert not mapped(runtime)
    assert len([*directory.iterdir()]) == 1


def emptied(data: bytearray) -> None:
    data.clear()


def foreign(data: bytearray) -> None:
    at = data.index(b"64-Bit Server VM (")
    data[at : at + 6] = b"96-Bit"


def damaged(data: bytearray) -> None:
    at = len(data) // 2
    data[at : at + 4096] = bytes(4096)


@pytest.mark.extended  # test_the_first_start_writes_it_for_the_next starts from one
@pytest.mark.e2e
@pytest.mark.parametrize("spoil", [emptied, foreign, damaged])
def test_a_bad_archive_is_replaced(
    directory: Path, tmp_path: Path, archives: Path, spoil: Callable[[bytearray], None]
) -> None:
    """TorchServe starts without one that is empty, of another Java or damaged, and has a good one written instead."""
    (archive,) = directory.iterdir()
    good = archive.stat().st_size
    data = bytearray(archive.read_bytes())
    spoil(data)
    archive.write_bytes(data)
    bad = archive.stat().st_ino
    with Runtime(tmp_path / "home", archives, environment(directory)) as runtime:
        assert not mapped(runtime)
        assert "Java does not take" in runtime.log.read_text()
        wait_until(
            lambda: archive.exists() and archive.stat().st_ino != bad, timeout_s=60, what="there is a new archive"
        )
        assert abs(archive.stat().st_size - good) < good / 10


@pytest.mark.extended  # test_the_first_start_writes_it_for_the_next starts from one
@pytest.mark.e2e
def test_an_archive_that_kills_java_does_not_stop_a_start(directory: Path, tmp_path: Path, archives: Path) -> None:
    """Java that dies of a damaged archive, which it was told not to check, is started again without."""
    (archive,) = directory.iterdir()
    data = bytearray(archive.read_bytes())
    data[2**20 : 4 * 2**20] = bytes(3 * 2**20)
    archive.write_bytes(data)
    with Runtime(tmp_path / "home", archives, environment(directory, "-XX:-VerifySharedSpaces")) as runtime:
        assert not mapped(runtime)
        log = runtime.log.read_text()
        assert "starting it again without" in log, log


@pytest.mark.extended  # test_the_first_start_writes_it_for_the_next starts from one
@pytest.mark.e2e
def test_a_directory_that_cannot_be_written_does_not_stop_a_start(tmp_path: Path, archives: Path) -> None:
    """TorchServe starts where no archive can be kept, and the log says so."""
    (tmp_path / "file").touch()
    with Runtime(tmp_path / "home", archives, environment(tmp_path / "file" / "java")) as runtime:
        runtime.register("model")
        assert runtime.ask("model")
        wait_until(
            lambda: "no archive of Java's classes can be kept" in runtime.log.read_text(),
            timeout_s=20,
            what="it is said",
        )
