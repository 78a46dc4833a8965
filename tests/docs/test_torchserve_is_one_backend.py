"""Nothing outside its folder knows TorchServe: its names stand in its own code, and in what is a contract of ours."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
LOOKED_AT = ("core/marway", "core/marway_http", "gateway/marway_gateway", "sidecar/marway_sidecar")
ITS_OWN = (
    "core/marway/archives",  # the format of its archives
    "core/marway/environments",  # it is a package that an archive may require
    "gateway/marway_gateway/proto/torchserve",
    "gateway/marway_gateway/surfaces/torchserve",
    "sidecar/marway_sidecar/backends/torchserve",
    "sidecar/marway_sidecar/settings/torchserve.py",  # names that are contracts; only its own folder looks at them
)
WORDS = re.compile(r"torchserve|java(?!script)|jdk|jvm|org\.pytorch", re.IGNORECASE)

ALLOWED = {
    # Which backends read a `.mar`.
    "core/marway/bundles/manifest.py": {'"torchserve"'},
    # The default of `backend`, in a record, in `runtime.json` and of a sidecar; and what has examples of it.
    "core/marway/records.py": {'"torchserve"'},
    "core/marway/refs.py": {"such as torchserve"},
    "core/marway/wire/runtime.py": {'"torchserve"'},
    "gateway/marway_gateway/admin/pod_views.py": {'"torchserve"'},
    "gateway/marway_gateway/admin/views.py": {'"torchserve"'},
    "gateway/marway_gateway/surfaces/catalogue.py": {'"torchserve"'},
    "sidecar/marway_sidecar/api/openapi.py": {'"backend":"torchserve"'},
    "sidecar/marway_sidecar/cli.py": {"torchserve, native, or that"},
    "sidecar/marway_sidecar/settings/__init__.py": {'"torchserve"', "torchserve", "TorchServeSettings"},
    # The two engines that a protected label may ask to have proved a version, and the backend whose archives both take.
    "core/marway/protection/missing.py": {'"torchserve"'},
    # Labels of a metric.
    "sidecar/marway_sidecar/metrics.py": {'"torchserve"', '"java"'},
    # The native engine takes the same archives, whose backend is called so.
    "sidecar/marway_sidecar/backends/native/server.py": {'"torchserve"'},
    # Its management API, where the operator asks for it: names of settings, and what serves it in the place of our own.
    "gateway/marway_gateway/admin/app.py": {"torchserve"},
    "gateway/marway_gateway/processes/parent.py": {"torchserve_management"},
    "gateway/marway_gateway/server.py": {"torchserve_management"},
    "gateway/marway_gateway/settings/__init__.py": {"torchserve_management"},
    # Surfaces of TorchServe's API: one is registered, others are compared with it.
    "gateway/marway_gateway/app.py": {"as TorchServe, KServe"},
    "gateway/marway_gateway/predict/body_hints.py": {'"torchserve"'},
    "gateway/marway_gateway/surfaces/grpc/server.py": {"torchserve"},
    "gateway/marway_gateway/surfaces/open_inference/routes.py": {"Explain, as TorchServe does"},
    "gateway/marway_gateway/surfaces/open_inference/schema.py": {"pytorch_torchserve"},
    "gateway/marway_gateway/surfaces/registered.py": {"torchserve", "TORCHSERVE"},
}  # fmt: skip
"""By file, what names it there: each is a word of a contract, or of a text for people."""


def named(text: str) -> Iterator[str]:
    """Yield each name and each text of a module that names TorchServe or its Java; comments and docstrings may."""
    docstrings = {
        (node.body[0].value.lineno, node.body[0].value.col_offset)
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    before = tokenize.NEWLINE
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        statement = token.type == tokenize.STRING and before in (tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT)
        if token.type not in (tokenize.NL, tokenize.COMMENT):
            before = token.type
        # A text that is a statement documents what is above it.
        told = token.type == tokenize.COMMENT or statement or token.start in docstrings
        if not told and WORDS.search(token.string):
            yield token.string


def test_its_names_are_its_own() -> None:
    """No code of core, gateway and sidecar names TorchServe or Java, but for what is listed with its reason."""
    strange: list[str] = []
    used: dict[str, set[str]] = {}
    for room in LOOKED_AT:
        for file in sorted((ROOT / room).rglob("*.py")):
            at = file.relative_to(ROOT).as_posix()
            if at.startswith(ITS_OWN):
                continue
            for word in named(file.read_text()):
                allowed = {each for each in ALLOWED.get(at, ()) if each in word}
                used.setdefault(at, set()).update(allowed)
                strange += [] if allowed else [f"{at}: {word[:80]}"]
    assert strange == [], "say it of model servers, or in TorchServe's own folder"
    assert used == ALLOWED, "no longer there: take it out of the list"


def test_what_is_looked_for_is_found() -> None:
    """Names and texts count; comments and docstrings do not."""
    source = (
        '"""TorchServe."""\n# JVM\nx = 1\n"""Of TorchServe."""\nkey_file = torchserve_key\nurl = "javascript"\n'
        'said = f"no {TorchServe}"\n'
    )
    assert [word for word in named(source) if "orchserve" in word.lower()] != []
    assert "url" not in "".join(named(source))
    assert next(named(source)) == "torchserve_key"
