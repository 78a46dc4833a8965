"""What serving settings may say: of scores, and of versions that keep sequences."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from marway.archives.sequences import SequenceSettings
from marway.errors import InvalidInput
from marway.graphs.settings import check_settings
from marway.serving import QualityRule, ServingSettings
from support.registry import record_of


def test_scores_have_a_range() -> None:
    """It is from 0 to 1 unless the rule says otherwise, and has two ends."""
    assert (QualityRule(kind="score").lowest, QualityRule(kind="score").highest) == (0, 1)
    assert QualityRule(kind="score", lowest=1, highest=5).highest == 5
    for lowest, highest in ((1, 1), (5, 1), (0, float("nan")), (float("-inf"), 1)):
        with pytest.raises(ValidationError):
            QualityRule(kind="score", lowest=lowest, highest=highest)


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("cache", True, "an answer depends on what was asked before"),
        ("min_workers", 2, "it has one worker on each pod"),
        ("max_workers", 3, "it has one worker on each pod"),
        ("streaming", True, "an answer is whole before the next request is begun"),
        ("fallback", "other/1.0", "no other version has its state"),
    ],
)
def test_settings_without_effect_on_sequences_are_refused(name: str, value: object, why: str) -> None:
    """What a version that keeps sequences would pass over is refused by name, published or set later."""
    serving = ServingSettings.model_validate({name: value})
    record = record_of(b"x", serving=serving, sequences=SequenceSettings())
    for names in (None, [name]):
        with pytest.raises(InvalidInput, match=f"'{name}' has no effect: intent 1.0 keeps sequences, and {why}"):
            check_settings(record, serving, names)
    check_settings(record, ServingSettings(max_workers=1, pods=3, max_batch_rows=4))
    check_settings(record.model_copy(update={"sequences": None}), serving)
