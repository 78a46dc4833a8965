"""What a quality rule may say of scores."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from marway.serving import QualityRule


def test_scores_have_a_range() -> None:
    """It is from 0 to 1 unless the rule says otherwise, and has two ends."""
    assert (QualityRule(kind="score").lowest, QualityRule(kind="score").highest) == (0, 1)
    assert QualityRule(kind="score", lowest=1, highest=5).highest == 5
    for lowest, highest in ((1, 1), (5, 1), (0, float("nan")), (float("-inf"), 1)):
        with pytest.raises(ValidationError):
            QualityRule(kind="score", lowest=lowest, highest=highest)
