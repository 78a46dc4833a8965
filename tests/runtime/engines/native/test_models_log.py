from __future__ import annotations

import os
from pathlib import Path

import pytest

from marway.wire import model_log
from marway_runtime.engines.native import models_log
from marway_runtime.engines.native.models_log import ModelsLog
from support.registry import until


async def test_lines_are_those_that_logs_are_read_by(tmp_path: Path) -> None:
    """What a worker writes is read back with whose it is; a line without an end is one when the worker ends."""
    log = ModelsLog(tmp_path)
    out, err = await log.pipes("mv_X_1.0", 3)
    os.write(out, b"one\ntw")
    os.write(out, b"o\nend")
    os.write(err, b"wrong\n")
    for descriptor in (out, err):
        os.close(descriptor)
    await until(lambda: len(model_log.read(tmp_path)) == 4)
    found = {line.text: line for line in model_log.read(tmp_path, ["mv_X_1.0"])}
    assert set(found) == {"one", "two", "end", "wrong"}
    assert {line.port for line in found.values()} == {3}
    assert (found["one"].level, found["wrong"].level) == ("info", "warning")
    log.close()


async def test_the_log_is_begun_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is full becomes the older one, of which there is one."""
    monkeypatch.setattr(models_log, "_BYTES_MAX", 100)
    log = ModelsLog(tmp_path)
    for word in (b"a", b"b", b"c"):
        log.write(b" INFO W-1-mv_X_1.0-stdout | ", [word * 60])
    log.close()
    assert sorted(each.name for each in tmp_path.iterdir()) == ["models.1.log"]
    assert [line.text[0] for line in model_log.read(tmp_path)] == ["c"]
