"""Draw each rollout of what `run.py --record FILE` wrote: the candidate's part of the requests, and the evidence."""

import argparse
import json
from html import escape
from itertools import pairwise
from pathlib import Path
from typing import Any

WIDTH, LEFT, RIGHT = 720, 78, 24
TOP, HEIGHT, GAP, EVIDENCE, BELOW = 86, 170, 56, 100, 40
COLOURS = {"promoted": "#2f7ed8", "rolled_back": "#d6336c"}
BEFORE_S, AFTER_S = 3.0, 5.0
"""How much is shown before a rollout begins, and after it ended."""
ENDS = {"promoted": "promoted", "rolled_back": "rolled back"}
Seconds = list[dict[str, Any]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("record", type=Path, help="what run.py wrote")
    parser.add_argument("directory", type=Path, help="where the pictures go, as release-promoted.svg and the like")
    args = parser.parse_args()
    seconds: Seconds = json.loads(args.record.read_text(encoding="utf-8"))
    for rollout in dict.fromkeys(each["rollout"]["rollout"] for each in seconds if each["rollout"]):
        state, drawn = picture(seconds, rollout)
        path = args.directory / f"release-{state.replace('_', '-')}.svg"
        path.write_text(drawn, encoding="utf-8")
        print(path)


def picture(seconds: Seconds, rollout: str) -> tuple[str, str]:
    """Return how a rollout ended, and the picture of it as SVG."""
    of_it = [each for each in seconds if each["rollout"] and each["rollout"]["rollout"] == rollout]
    # One that was rolled back between two looks was never seen running.
    running = [each["at"] for each in of_it if each["rollout"]["state"] == "running"] or [of_it[0]["at"]]
    first, last = running[0] - BEFORE_S, running[-1] + AFTER_S
    end = next(each["rollout"] for each in of_it if each["rollout"]["state"] != "running")
    shares = shares_of(seconds, end["candidate"], first, last)
    most = next(each for each in (4, 8, 100) if max(share for _, share in shares) <= each)
    title = f"intent {end['candidate']} is to take the place of {end['base']}: {ENDS[end['state']]}"
    scale = Scale(first, last)
    parts = [
        text(LEFT, 24, title, size=16),
        text(LEFT, TOP - 36, f"Callers of PROD that {end['candidate']} answered, of 100 a second", grey=True),
        *axis(scale, TOP + HEIGHT, HEIGHT, [(most * part / 4, f"{most * part / 4:g} %") for part in range(5)], most),
        area(scale, shares, most, COLOURS[end["state"]]),
        text(LEFT, TOP + HEIGHT + GAP - 14, "Evidence that it is worse, of the guard that has most of it", grey=True),
        *axis(scale, TOP + HEIGHT + GAP + EVIDENCE, EVIDENCE, [(0, "none"), (1, "verdict")], 1.2),
        evidence(scale, of_it, COLOURS[end["state"]]),
        *changes(scale, of_it),
    ]
    height = TOP + HEIGHT + GAP + EVIDENCE + BELOW
    parts += [
        text(scale.x(running[0] + at), height - BELOW + 20, f"{at} s", anchor="middle")
        for at in range(0, int(last - running[0]) + 1, 5)
    ]
    return end["state"], (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" '
        f'font-size="13">\n<rect width="{WIDTH}" height="{height}" fill="white"/>\n' + "\n".join(parts) + "\n</svg>\n"
    )


class Scale:
    """Where a moment is, from left to right."""

    def __init__(self, first: float, last: float) -> None:
        self.first, self.last = first, last

    def x(self, at: float) -> float:
        at = min(max(at, self.first), self.last)
        return LEFT + (at - self.first) / (self.last - self.first) * (WIDTH - LEFT - RIGHT)


def shares_of(seconds: Seconds, version: str, first: float, last: float) -> list[tuple[float, float]]:
    """Return of how many requests in a hundred a version answered, for each second of a time."""
    found = []
    for before, after in pairwise(seconds):
        if first <= after["at"] <= last:
            new = {name: count - before["answered"].get(name, 0) for name, count in after["answered"].items()}
            found.append((after["at"], 100 * new.get(version, 0) / max(1, sum(new.values()))))
    return found


def area(scale: Scale, shares: list[tuple[float, float]], most: float, colour: str) -> str:
    bottom = TOP + HEIGHT
    points = [(scale.x(at), bottom - HEIGHT * share / most) for at, share in shares]
    points = [(points[0][0], bottom), *points, (points[-1][0], bottom)]
    return f'<polygon points="{drawn(points)}" fill="{colour}" fill-opacity="0.85"/>'


def evidence(scale: Scale, of_it: Seconds, colour: str) -> str:
    """Return a line along the evidence of the guard that has most of it, up to the verdict."""
    bottom, points = TOP + HEIGHT + GAP + EVIDENCE, []
    for each in of_it:
        guards = each["rollout"]["evidence"].values()
        most = max((min(1.2, max(0.0, guard["evidence"])) for guard in guards), default=0.0)
        points.append((scale.x(each["at"]), bottom - EVIDENCE * most / 1.2))
        if each["rollout"]["state"] != "running":
            break
    return f'<polyline points="{drawn(points)}" fill="none" stroke="{colour}" stroke-width="3"/>'


def changes(scale: Scale, of_it: Seconds) -> list[str]:
    """Return a mark for each change, with what it was."""
    parts, before = [], None
    for each in of_it:
        rollout = each["rollout"]
        now = ENDS.get(rollout["state"], f"{rollout['percent']:g} %")
        if now == before:
            continue
        if rollout["state"] != "running" and rollout["guard"]:
            now += f": {rollout['guard']}"
        x, before = scale.x(each["at"]), ENDS.get(rollout["state"], now)
        parts.append(line(x, TOP - 6, x, TOP + HEIGHT + GAP + EVIDENCE, "#495057", dash="2 3"))
        parts.append(text(x + 3, TOP - 10, now))
    return parts


def axis(scale: Scale, bottom: float, height: float, ticks: list[tuple[float, str]], most: float) -> list[str]:
    parts = []
    for value, said in ticks:
        y = bottom - height * value / most
        parts.append(line(LEFT, y, scale.x(scale.last), y, "#dee2e6"))
        parts.append(text(LEFT - 8, y + 4, said, anchor="end"))
    return parts


def drawn(points: list[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)


def line(x: float, y: float, to_x: float, to_y: float, colour: str, *, dash: str = "") -> str:
    dashed = f' stroke-dasharray="{dash}"' if dash else ""
    return f'<line x1="{x:.1f}" y1="{y:.1f}" x2="{to_x:.1f}" y2="{to_y:.1f}" stroke="{colour}"{dashed}/>'


def text(x: float, y: float, words: str, *, anchor: str = "start", size: int = 13, grey: bool = False) -> str:
    colour = "#6c757d" if grey else "#212529"
    said = escape(words)
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" fill="{colour}">{said}</text>'


if __name__ == "__main__":
    main()
