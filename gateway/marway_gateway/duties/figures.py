"""What the last evaluations found, as metrics of the process that does the background duties."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Final

from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from marway_observations.evaluate.results import Evaluation, Kind

__all__ = ["FIGURES_MAX", "Figures"]

FIGURES_MAX: Final = 5000
"""Most figures of a kind that are shown: a registry may have more models and fields than Prometheus likes."""
_NOTHING: Final = Evaluation(at=datetime.fromtimestamp(0, UTC), cpu_s=0, rules=0)
_log = logging.getLogger(__name__)


class Figures(Collector):
    """Quality and drift of all models; none while another process does the background duties."""

    def __init__(self) -> None:
        self._evaluations: dict[Kind, Evaluation] = {}
        self._troubled: dict[Kind, frozenset[str]] = {}

    def found(self, kind: Kind, evaluation: Evaluation) -> None:
        """Show what an evaluation found, in the place of the one before, and log once a trouble what it could not."""
        self._evaluations[kind] = evaluation
        troubled = {f"{kind} of {each.model} cannot be told: {each.why}" for each in evaluation.troubles}
        troubled |= {f"drift of {each.model} {each.version} cannot be told: {each.why}" for each in evaluation.unjudged}
        figures = max(len(evaluation.quality), len(evaluation.drift))
        if figures > FIGURES_MAX:
            troubled.add(f"{figures} figures of {kind} were found, of which {FIGURES_MAX} are shown")
        for words in sorted(troubled - self._troubled.get(kind, frozenset())):
            _log.warning("%s", words)
        self._troubled[kind] = frozenset(troubled)

    def forget(self, kind: Kind) -> None:
        """Show nothing of a kind: another process looks at it."""
        self._evaluations.pop(kind, None)

    def collect(self) -> Iterator[Metric]:
        """Yield all families, also those without figures."""
        by_rule = ("model", "version", "label", "metric")
        value = GaugeMetricFamily(
            "marway_model_quality",
            "How good a version's answers turned out to be, by a metric.",
            labels=by_rule,
        )
        lower = GaugeMetricFamily("marway_model_quality_lower", "The lower end of its 95 % interval.", labels=by_rule)
        upper = GaugeMetricFamily("marway_model_quality_upper", "The upper end of its 95 % interval.", labels=by_rule)
        breached = GaugeMetricFamily(
            "marway_model_quality_breached", "Whether it surely breaches its declared bound.", labels=by_rule
        )
        predictions = GaugeMetricFamily(
            "marway_model_quality_predictions",
            "Predictions in the window that is looked at, by whether their truth is known.",
            labels=(*by_rule, "truth"),
        )
        for each in self._shown("quality").quality[:FIGURES_MAX]:
            names = [each.model, each.version, each.label or "", each.metric]
            for family, figure in ((value, each.value), (lower, each.lower), (upper, each.upper)):
                if figure is not None:
                    family.add_metric(names, figure)
            breached.add_metric(names, float(each.standing == "breached"))
            predictions.add_metric([*names, "known"], each.known)
            predictions.add_metric([*names, "missing"], each.missing)
        yield from (value, lower, upper, breached, predictions)
        by_field = ("model", "version", "field")
        psi = GaugeMetricFamily(
            "marway_model_drift_psi", "Population stability index of a field against its reference.", labels=by_field
        )
        ks = GaugeMetricFamily(
            "marway_model_drift_ks", "Kolmogorov-Smirnov distance of a field from its reference.", labels=by_field
        )
        drifted = GaugeMetricFamily("marway_model_drifted", "Whether a field has drifted.", labels=by_field)
        for field in self._shown("drift").drift[:FIGURES_MAX]:
            names = [field.model, field.version, field.field]
            for family, figure in ((psi, field.psi), (ks, field.ks)):
                if figure is not None:
                    family.add_metric(names, figure)
            drifted.add_metric(names, float(field.standing == "breached"))
        yield from (psi, ks, drifted)

    def _shown(self, kind: Kind) -> Evaluation:
        return self._evaluations.get(kind, _NOTHING)
