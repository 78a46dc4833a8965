"""A figure of quality by version, as a plot: a dot, how surely it is known, and what it must keep to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from markupsafe import Markup

from marway_observations.evaluate.results import Quality

__all__ = ["interval_plot"]

_WIDTH: Final = 400
_ROW: Final = 26
_LEFT, _RIGHT = 70, 20
_STANDING: Final = {
    "met": "keeps to its bound",
    "breached": "breaches its bound",
    "unclear": "near its bound: the interval leaves it open",
    "too_few": "too few are known to judge it",
    "no_bound": "no bound declared",
}


def interval_plot(metric: str, results: Sequence[Quality]) -> Markup:
    """Return a `<figure>` with a row for each version, and the same as a table.

    Args:
        metric: Which figure.
        results: Of versions that have a value, in the order of their rows.
    """
    values = [each for row in results for each in (row.value, row.lower, row.upper, row.minimum, row.maximum)]
    known = [each for each in values if each is not None]
    low, high = min(known), max(known)
    if low >= 0 and high <= 1:
        low, high = 0.0, 1.0  # a part of all
    elif low == high:
        low, high = low - 1, high + 1

    def x(value: float) -> str:
        return f"{_LEFT + (_WIDTH - _LEFT - _RIGHT) * (value - low) / (high - low):.1f}"

    height = _ROW * len(results) + 22
    drawn = [
        Markup(
            '<line class="grid" x1="{0}" x2="{0}" y1="2" y2="{1}"/>'
            '<text class="tick" x="{0}" y="{2}" text-anchor="middle">{3:.4g}</text>'
        ).format(x(value), height - 18, height - 5, value)
        for value in (low, (low + high) / 2, high)
    ]
    for number, each in enumerate(results):
        assert each.value is not None
        y = _ROW * number + _ROW / 2 + 2
        drawn.append(
            Markup('<text class="tick" x="{}" y="{}" text-anchor="end">{}</text>').format(
                _LEFT - 8, y + 4, each.version
            )
        )
        if each.lower is not None and each.upper is not None:
            drawn.append(
                Markup('<line class="interval" x1="{}" x2="{}" y1="{}" y2="{}"/>').format(
                    x(each.lower), x(each.upper), y, y
                )
            )
        drawn += [
            Markup('<line class="limit" x1="{0}" x2="{0}" y1="{1}" y2="{2}"/>').format(x(bound), y - 10, y + 10)
            for bound in (each.minimum, each.maximum)
            if bound is not None
        ]
        drawn.append(Markup('<circle class="value" cx="{}" cy="{}" r="4.5"/>').format(x(each.value), y))
    says = f"{metric} by version: " + "; ".join(f"{each.version} {each.value:.4g}" for each in results)
    return Markup(
        '<figure class="plot-figure"><figcaption class="plot-title">{} by version</figcaption>'
        '<svg class="plot" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>{}</figure>'
    ).format(metric, _WIDTH, height, says, Markup("").join(drawn), _table(metric, results))


def _table(metric: str, results: Sequence[Quality]) -> Markup:
    rows = Markup("").join(
        Markup(
            '<tr><th scope="row">{}</th><td class="number">{:.4g}</td><td>{}</td><td class="number">{}</td>'
            "<td>{}</td></tr>"
        ).format(
            each.version,
            each.value,
            "–" if each.lower is None or each.upper is None else f"{each.lower:.4g} to {each.upper:.4g}",
            each.known,
            _STANDING[each.standing],
        )
        for each in results
    )
    return Markup(
        '<div class="wide" tabindex="0" role="region" aria-label="{0} in numbers"><table><thead><tr>'
        '<th scope="col">Version</th><th scope="col" class="number">{0}</th><th scope="col">95 % between</th>'
        '<th scope="col" class="number">Known</th><th scope="col">Bound</th></tr></thead>'
        "<tbody>{1}</tbody></table></div>"
    ).format(metric, rows)
