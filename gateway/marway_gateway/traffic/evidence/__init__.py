"""Is a candidate worse than its base? Counts of outcomes, and tests on them that hold however often one looks.

Nothing here knows of HTTP, stores or clocks: counts go in, verdicts come out.

- `capital`: what betting against a hypothesis has won: the one statistical tool of all guards;
- `counts`: what is counted, by step, as documents that add up;
- `tally`: the counts of one process, fed by answers;
- `memory`: whether a candidate's memory grows;
- `judging`: a verdict by guard;
- `planning`: what a rollout would notice, and how soon.
"""

from marway_gateway.traffic.evidence.counts import Evidence, LiveQuality, Outcomes, QualityCounts, merged
from marway_gateway.traffic.evidence.judging import judged
from marway_gateway.traffic.evidence.memory import MemorySample
from marway_gateway.traffic.evidence.planning import plan_of
from marway_gateway.traffic.evidence.tally import Side, Tally

__all__ = [
    "Evidence",
    "LiveQuality",
    "MemorySample",
    "Outcomes",
    "QualityCounts",
    "Side",
    "Tally",
    "judged",
    "merged",
    "plan_of",
]
