"""The message of answers that a worker sends."""

from __future__ import annotations

import warnings

from marway.wire.envelope import Answer

with warnings.catch_warnings():
    warnings.simplefilter("ignore", ResourceWarning)  # TorchServe leaves a file open when it is imported
    from marway_runtime.worker.service import within


def test_an_answer_over_the_limit_leaves_nothing_of_it() -> None:
    """What is too large for the message is replaced whole, its content type too."""
    (answer,) = within([Answer(200, b"x" * 100_000, "text", "y" * 100_000)], 50_000)
    assert (answer.status, answer.kind, answer.content_type) == (507, "error", None)


def test_a_long_content_type_counts_though_the_body_is_small() -> None:
    """Small answers are let through unencoded only when nothing about them can be large."""
    small, long = Answer(200, b"x", "text"), Answer(200, b"x", "text", "y" * 60_000)
    assert within([small, small], 50_000) == [small, small]
    assert [each.status for each in within([small, long], 50_000)] == [200, 507]
