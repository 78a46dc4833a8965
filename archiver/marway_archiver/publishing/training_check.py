"""Holds a version's training data against its golden inputs, which are what callers send."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from marway.answers.bodies import parts_of
from marway.answers.golden import examples_in
from marway.errors import clip
from marway.features.collecting import Rows
from marway.features.summaries import FeatureSummary
from marway.features.walking import base_of, root_of
from marway.records import ArchiveKind

__all__ = ["unsent"]

_PLAIN_FIELD: Final = re.compile(r'input(\.([A-Za-z_]\w*|"[^"]*")|\[\d*\])*')
"""Names of fields as they are found; what a drift rule's expressions compute is called otherwise."""


def unsent(archive: Path, kind: ArchiveKind, features: Mapping[str, FeatureSummary]) -> list[str]:
    """Return a warning where golden inputs, which are what callers send, lack fields that all training data have.

    Such as the column of a table that is what the model predicts: predictions would lack it for ever, which is drift.
    """
    always = {base_of(name): each for name, each in features.items() if root_of(name) == "input" and not each.missing}
    if not always:
        return []
    with zipfile.ZipFile(archive) as opened:
        examples = examples_in(opened, kind)
    sent = Rows()
    for each in examples:
        if parts := parts_of(each.data, each.content_type):
            sent.add({"input": parts})
    known = set(sent.fields())
    lacking = [name for name in always if name not in known and _PLAIN_FIELD.fullmatch(name)]
    if not known or not lacking:
        return []
    return [
        f"all training data have {clip(', '.join(lacking), 200)}, and no golden example does: if callers do not send "
        "it, leave it out, or later predictions will count as drifted; docs/drift.md says how"
    ]
