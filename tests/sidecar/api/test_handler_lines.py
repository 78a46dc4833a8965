"""What a version's handler wrote, as the pod tells it."""

from __future__ import annotations

import json
from pathlib import Path

from marway.refs import server_name
from marway.registry import Registry
from marway.wire.pods import HandlerLines
from support.pod import serving
from support.registry import publish


def written(worker: str, text: str, **more: object) -> str:
    record = {"time": "2026-12-01T02:00:00.000+00:00", "level": "error", "logger": "h", "message": text, **more}
    return f"2026-12-01T02:00:00.000Z INFO W-9000-{worker}-stdout | {json.dumps(record)}\n"


async def test_lines_of_a_version_and_of_a_request(registry: Registry, tmp_path: Path) -> None:
    """The newest lines of the version alone, or of one request and its rows, with tracebacks; none where none are."""
    record = publish(registry, tmp_path, "some", "1.0")
    publish(registry, tmp_path, "other", "1.0")
    ours = f"{server_name(record.id)}_1.0"
    logs = tmp_path / "run/logs"
    logs.mkdir(parents=True)
    (logs / "models.log").write_text(
        written(ours, "first", request_id="r-1")
        + written("mv_else_1.0", "another's", request_id="r-1")
        + written(ours, "failed", request_ids=["r-2/0", "r-3"], traceback="Traceback …\nKeyError: 'text'")
    )
    async with serving(registry, tmp_path) as pod:

        async def lines(path: str) -> list[tuple[str, str | None]]:
            answer = await pod.client.get(path)
            assert answer.status_code == 200, answer.text
            return [(each.text, each.traceback) for each in HandlerLines.model_validate_json(answer.content).lines]

        failed = ("failed", "Traceback …\nKeyError: 'text'")
        assert await lines("/models/some/1.0/log") == [("first", None), failed]
        assert await lines("/models/some/PROD/log?lines=1") == [failed]
        assert await lines("/models/some/1.0/log?request=r-2") == [failed]
        assert await lines("/models/some/1.0/log?request=r") == []
        assert await lines("/models/other/1.0/log") == []
        assert (await pod.client.get("/models/nothing/1.0/log")).status_code == 404
