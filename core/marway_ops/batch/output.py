"""A job's output: a directory or prefix in which each part is there once and whole, whoever was killed when.

::

    part-00000000-of-input-00000-rows-0000000001-0000001000.ATTEMPT.jsonl   answers
    _failed/part-….ATTEMPT.jsonl                                            rows without one, and why
    _commits/00000000.json                                                  which attempt counts
    _job.json, _manifest.json                                               what the job is; what became of it

Answers and failures of a part are written first, under a name of their own attempt; then a commit that names them is
created, and whoever creates it first has done the part. What another attempt wrote is then nobody's, and is removed.
Before there is a commit nothing is removed, as its maker may be about to commit it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, Final

from marway.errors import InvalidInput
from marway.objects import ObjectExists, ObjectMissing, ObjectStore
from marway.refs import new_ulid
from marway_ops.batch.job import Commit, Job, Part
from marway_ops.batch.requests import Answer, Failure
from marway_ops.batch.writing import written_answers, written_failures

__all__ = ["Output"]

_JOB: Final = "_job.json"
_MANIFEST: Final = "_manifest.json"
_COMMITS: Final = "_commits/"
_FAILED: Final = "_failed/"
_AT_ONCE: Final = 8


class Output:
    """Everything blocks.

    Args:
        store: Where it is.
    """

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def begun(self) -> Job | None:
        """Return the job whose output is here.

        Raises:
            InvalidInput: What is here is of another Marway.
        """
        try:
            data = self._store.get(_JOB).data
        except ObjectMissing:
            return None
        try:
            return Job.model_validate_json(data)
        except ValueError as exc:
            raise InvalidInput(f"{self._store.url}/{_JOB} cannot be read: {exc}; give another --output") from exc

    def begin(self, job: Job) -> Job:
        """Return the job that is done here: this one, or the same that was begun before.

        Raises:
            Conflict: There is the output of another job.
        """
        found = self.begun()
        if found is None:
            try:
                self._store.create(_JOB, _document(job.model_dump(mode="json")))
                return job
            except ObjectExists:
                found = self.begun()
                assert found is not None
        job.check_same(found, self._store.url)
        return found

    def committed(self) -> set[int]:
        """Return the parts that are done."""
        return {int(key[len(_COMMITS) :].partition(".")[0]) for key in self._store.keys(_COMMITS)}

    def commit(self, job: Job, part: Part, answers: Sequence[Answer], failures: Sequence[Failure]) -> bool:
        """Write what became of a part's rows; return whether it counts, and not another attempt's."""
        attempt = new_ulid().lower()
        named = f"{part.name}.{attempt}"
        commit = Commit(
            part=part,
            rows=len(answers),
            failed=len(failures),
            answers=f"{named}.{job.output_format}" if answers else None,
            failures=f"{_FAILED}{named}.jsonl" if failures else None,
        )
        if commit.answers is not None:
            self._store.create(commit.answers, written_answers(answers, job.output_format))
        if commit.failures is not None:
            self._store.create(commit.failures, written_failures(failures))
        try:
            self._store.create(f"{_COMMITS}{part.index:08}.json", _document(commit.model_dump(mode="json")))
        except ObjectExists:
            for key in (commit.answers, commit.failures):
                if key is not None:
                    self._store.delete(key)
            return False
        return True

    def finish(self, job: Job) -> dict[str, Any]:
        """Remove what attempts left that do not count, write the manifest, and return it; all parts are done."""
        commits = list(self._commits())
        counting = {key for commit in commits for key in (commit.answers, commit.failures)}
        for key in list(self._store.keys("")):
            if key.removeprefix(_FAILED).startswith("part-") and key not in counting:
                self._store.delete(key)
        manifest = {
            **job.model_dump(mode="json"),
            "rows": sum(commit.rows for commit in commits),
            "failed": sum(commit.failed for commit in commits),
            "parts": [commit.model_dump(mode="json") for commit in commits],
        }
        with suppress(ObjectExists):  # another shard was the last one too: it wrote the same
            self._store.create(_MANIFEST, _document(manifest))
        return manifest

    def _commits(self) -> Iterator[Commit]:
        with ThreadPoolExecutor(_AT_ONCE) as threads:
            for data in threads.map(lambda key: self._store.get(key).data, sorted(self._store.keys(_COMMITS))):
                yield Commit.model_validate_json(data)


def _document(document: dict[str, Any]) -> bytes:
    return json.dumps(document, indent=1, ensure_ascii=False).encode() + b"\n"
