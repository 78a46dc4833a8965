"""The verb `marway new`: writes a handler to begin with, examples of its requests and a test."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Annotated, Final, NamedTuple

import typer

from marway.errors import InvalidInput, InvalidReference
from marway.refs import check_model_name
from marway_ops.shell.options import JsonOption
from marway_ops.shell.output import print_json

__all__ = ["KINDS", "Kind", "KindName", "new", "write_new"]

_KINDS: Final = Path(__file__).with_name("kinds")
_SKIPPED: Final = frozenset({"__pycache__"})


class KindName(str, Enum):
    """What the model takes, or what made it."""

    text = "text"
    image = "image"
    tensor = "tensor"
    embedding = "embedding"
    sklearn = "sklearn"
    onnx = "onnx"
    streaming = "streaming"


class Kind(NamedTuple):
    """One kind of handler.

    Attributes:
        says: What the handler that is written does.
        pack: The further flags of `marway pack`.
        trained: Whether `train.py` has to be run first.
    """

    says: str
    pack: str = ""
    trained: bool = False


KINDS: Final[Mapping[KindName, Kind]] = {
    KindName.text: Kind("a text in, a label and its score out"),
    KindName.image: Kind("a PNG or JPEG picture in, a label and its score out"),
    KindName.tensor: Kind("numbers in, numbers out, through a PyTorch model", "--serialized-file weights.pt", True),
    KindName.embedding: Kind("a text in, a vector of length 1 out"),
    KindName.sklearn: Kind(
        "a row of numbers in, a class and its probabilities out, by a scikit-learn model",
        "--serialized-file model.joblib --requirements-file requirements.txt",
        True,
    ),
    KindName.onnx: Kind(
        "a row of numbers in, numbers out, through an ONNX model",
        "--serialized-file model.onnx --requirements-file requirements.txt",
        True,
    ),
    KindName.streaming: Kind("a text in, its words out one by one, as they are made"),
}


def new(
    kind: Annotated[KindName, typer.Argument(help="What the model takes, or what made it.")],
    directory: Annotated[
        Path | None, typer.Argument(help="Directory to write to, new or empty; KIND-model by default.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Write a handler to begin with: its code, examples of requests, and a test."""
    target = directory or Path(f"{kind.value}-model")
    written = write_new(kind, target)
    if as_json:
        print_json({"directory": str(target), "kind": kind.value, "files": written, "commands": commands(kind, target)})
        return
    typer.echo(f"{target}/: {KINDS[kind].says}\n  {'  '.join(written)}\n\nNext:")
    for command in [f"cd {shlex.quote(str(target))}", *commands(kind, target)]:
        typer.echo(f"  {command}")


def write_new(kind: KindName, directory: Path) -> list[str]:
    """Write what `marway new` writes into a new or empty ``directory``, and return the names of the files.

    Raises:
        InvalidInput: The directory holds something.
    """
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise InvalidInput(f"{directory} is there and not empty: name another directory, or remove what is in it")
    source = _KINDS / kind.value
    written = []
    for file in sorted(source.rglob("*")):
        if file.is_dir() or not _SKIPPED.isdisjoint(file.parts):
            continue
        target = directory / file.relative_to(source)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(file.read_bytes())
        written.append(str(file.relative_to(source)))
    (directory / "README.md").write_text(_readme(kind, directory), encoding="utf-8")
    return sorted([*written, "README.md"])


def commands(kind: KindName, directory: Path) -> list[str]:
    """Return what to type next in the directory, in its order."""
    name = model_name(kind, directory)
    flags = " ".join(filter(None, [KINDS[kind].pack, "--examples examples.jsonl"]))
    trained = ["python train.py"] if KINDS[kind].trained else []
    return [
        *trained,
        "marway dev handler.py --examples examples.jsonl",
        "pytest test_handler.py",
        f"marway pack --model-name {name} --version 1.0 --handler handler.py {flags}",
    ]


def model_name(kind: KindName, directory: Path) -> str:
    """Return a name for the model: that of its directory, if a model can have it, else the kind's."""
    try:
        check_model_name(directory.absolute().name)
    except InvalidReference:
        return kind.value
    return directory.absolute().name


def _readme(kind: KindName, directory: Path) -> str:
    comments = {
        "python train.py": "makes the model, and its requirements",
        "marway dev": "serves the handler, loads it anew when you save, shows the answers to the examples",
        "pytest": "calls it as a worker does, alone and in batches",
        "marway pack": "makes the archive that `marway publish` takes",
    }
    lines = []
    for command in commands(kind, directory):
        comment = next(text for begins, text in comments.items() if command.startswith(begins))
        lines += [f"# {comment}", command]
    script = "\n".join(lines)
    return (
        f"# {model_name(kind, directory)}\n\n{KINDS[kind].says[0].upper()}{KINDS[kind].says[1:]}.\n\n"
        "`handler.py` is what is served: put your own model into `initialize` and `predict`. `examples.jsonl` has a\n"
        "request a line; packed with the archive they are its golden examples. `test_handler.py` is the test.\n\n"
        f"```sh\n{script}\n```\n"
    )
