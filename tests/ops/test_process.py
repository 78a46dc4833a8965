"""Parts of `marway up` that end are started again soon, and not without end."""

from __future__ import annotations

from marway.process.children import RestartPauses


def test_a_part_that_ran_is_started_again_at_once() -> None:
    """However often it ended, what had run for a while has no pause; what ends soon waits longer each time."""
    pauses = RestartPauses()
    assert [pauses.after(1000.0), pauses.after(11.0)] == [0, 0]
    assert [pauses.after(1.0) for _ in range(9)] == [0.5, 1, 2, 4, 8, 16, 30, 30, 30]
    assert [pauses.after(11.0), pauses.after(1.0)] == [0, 0.5]
