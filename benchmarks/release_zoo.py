"""A hundred releases of three real models, half of them bad: what is wrong with each, and how it is published."""

import io
import json
import random
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import efficientnet

ROOT = Path(__file__).parents[1]
HANDLERS = ROOT / "handlers" / "marway_handlers"
RELEASE = Path(__file__).parent / "models" / "release.py"
BASE, BASE_SEED = "1.0", 2026
QUALITY = [{"kind": "classification", "prediction": "label"}]
_PICTURES = 300
_INNER = {
    "intent": "text_classifier:TextClassifier",
    "digits": "image_classifier:ImageClassifier",
    "picture": "small_picture:Picture",
}
_PICTURE_SIDE = 48


@dataclass(frozen=True)
class Input:
    """What a caller sends, and what is right where that is known."""

    body: bytes
    content_type: str
    truth: str | None = None


@dataclass(frozen=True)
class Release:
    """One version that is to take the place of `BASE`.

    Attributes:
        model: Of which model; those named `…-truth` are told what was right.
        version: Its version.
        good: Whether it is to be let through.
        what: In a few words.
        fault: For `fault.json`.
        seed: Its weights are trained from it.
        change: Changes its weights.
    """

    model: str
    version: str
    good: bool
    what: str
    fault: dict[str, Any] = field(default_factory=lambda: {"kind": "none"})
    seed: int = BASE_SEED
    change: Callable[[dict[str, Any]], dict[str, Any]] | None = None


def half_precision(weights: dict[str, Any]) -> dict[str, Any]:
    return {name: each.half().float() for name, each in weights.items()}


def eight_bits(weights: dict[str, Any]) -> dict[str, Any]:
    def rounded(each: Any) -> Any:
        step = each.abs().max() / 127 or 1.0
        return (each / step).round() * step

    return {name: rounded(each) for name, each in weights.items()}


def noisy(weights: dict[str, Any]) -> dict[str, Any]:
    import torch

    generator = torch.Generator().manual_seed(5)
    return {
        name: each + each.std() * 2.5 * torch.randn(each.shape, generator=generator) for name, each in weights.items()
    }


def half_missing(weights: dict[str, Any]) -> dict[str, Any]:
    def cut(each: Any) -> Any:
        kept = each.clone()
        kept[len(each) // 2 :] = 0
        return kept

    return {name: cut(each) for name, each in weights.items()}


MIB = 1 << 20
# The same for every model: what is wrong, and fault.json.
_FAULTS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("raises for 2 % of inputs", {"kind": "raises", "share": 0.02}),
    ("raises for 5 % of inputs", {"kind": "raises", "share": 0.05}),
    ("fails after 400 requests", {"kind": "breaks_after", "after": 400}),
    ("NaN for 3 % of inputs", {"kind": "nan", "share": 0.03}),
    ("NaN for 5 % of inputs, not reported by the handler", {"kind": "silent_nan", "share": 0.05}),
    ("twice the latency", {"kind": "slower", "times": 2}),
    ("three times the latency", {"kind": "slower", "times": 3}),
    ("80 ms more for 6 % of inputs", {"kind": "late", "share": 0.06, "seconds": 0.08}),
    ("a field renamed", {"kind": "renamed"}),
    ("scores missing for 5 % of inputs", {"kind": "without_scores", "share": 0.05}),
    ("numbers as text", {"kind": "text_numbers"}),
    ("numbers as text for 4 % of inputs", {"kind": "text_numbers", "share": 0.04}),
    ("answers in a list for 8 % of inputs", {"kind": "wrapped", "share": 0.08}),
    ("plain text in place of JSON", {"kind": "plain_text"}),
    ("leaks 150 KiB a request", {"kind": "leak", "bytes": 150 << 10}),
)
_SWAPPED = {"intent": ("set_alarm", "weather"), "digits": ("3", "8")}
_WRONG = {"intent": "weather", "digits": "1"}


def bad() -> list[Release]:
    """Return the 50 bad releases."""
    found: list[tuple[str, str, dict[str, Any], Any]] = []
    for model in ("intent", "digits"):
        found += [(model, what, fault, None) for what, fault in _FAULTS]
        found.append((model, "two classes swapped", {"kind": "swapped", "labels": _SWAPPED[model]}, None))
        found.append((model, "always the same class", {"kind": "constant", "label": _WRONG[model]}, None))
        found.append((model, "half of the weights missing", {"kind": "none"}, half_missing))
        for share in (0.035, 0.06):
            fault = {"kind": "wrong", "label": _WRONG[model], "share": share}
            found.append((f"{model}-truth", f"{share:.1%} of answers wrong, truth told", fault, None))
    found.append(("intent", "weights damaged", {"kind": "none"}, noisy))
    found += [("picture", what, fault, None) for what, fault in (_FAULTS[i] for i in (0, 2, 3, 5, 6, 8, 9, 14))]
    found.append(("picture", "always the same class", {"kind": "constant", "label": "1"}, None))
    return [
        Release(model, f"2.{number}", False, what, fault, change=change)
        for number, (model, what, fault, change) in enumerate(found)
    ]


def good() -> list[Release]:
    """Return the 50 good releases."""
    found: list[tuple[str, str, dict[str, Any], int, Any]] = []
    none: dict[str, Any] = {"kind": "none"}
    for model in ("intent", "digits"):
        found += [(model, "trained from another seed", none, BASE_SEED + seed, None) for seed in range(1, 9)]
        found += [
            (model, "packed again", none, BASE_SEED, None),
            (model, "weights of 16 bits", none, BASE_SEED, half_precision),
            (model, "weights of 8 bits", none, BASE_SEED, eight_bits),
            (model, "a tenth slower", {"kind": "slower", "times": 1.1}, BASE_SEED, None),
            (model, "40 MiB more memory", {"kind": "more_memory", "bytes": 40 * MIB}, BASE_SEED, None),
            (
                model,
                "one answer in 1,000 wrong",
                {"kind": "wrong", "label": _WRONG[model], "share": 0.001},
                BASE_SEED,
                None,
            ),
            (model, "one answer in 500 late", {"kind": "late", "share": 0.002, "seconds": 0.05}, BASE_SEED, None),
        ]
        found += [(f"{model}-truth", "packed again, truth told", none, BASE_SEED, None)]
        found += [(f"{model}-truth", "weights of 8 bits, truth told", none, BASE_SEED, eight_bits)]
        found += [(f"{model}-truth", "trained from another seed, truth told", none, BASE_SEED + 11, None)]
    found += [("picture", "packed again", {"kind": "none", "build": build}, BASE_SEED, None) for build in range(8)]
    found += [
        ("picture", "a tenth slower", {"kind": "slower", "times": 1.1}, BASE_SEED, None),
        ("picture", "40 MiB more memory", {"kind": "more_memory", "bytes": 40 * MIB}, BASE_SEED, None),
        ("picture", "a fifth faster", {"kind": "none", "build": "faster"}, BASE_SEED, None),
        ("picture", "one answer in 500 late", {"kind": "late", "share": 0.002, "seconds": 0.05}, BASE_SEED, None),
    ]
    found += [(model, "packed again, by another", {"kind": "none", "by": "other"}, BASE_SEED, None) for model in _WRONG]
    return [
        Release(model, f"3.{number}", True, what, fault, seed, change)
        for number, (model, what, fault, seed, change) in enumerate(found)
    ]


def releases() -> list[Release]:
    """Return all hundred, good and bad mixed by a fixed seed."""
    found = [*bad(), *good()]
    random.Random(77).shuffle(found)
    return found


MODELS = ("intent", "digits", "picture", "intent-truth", "digits-truth")


@cache
def inputs(model: str) -> Sequence[Input]:
    """Return what callers of a model send, in an order of its own."""
    kind = model.removesuffix("-truth")
    if kind == "intent":
        lines = [
            line
            for name in ("heldout.tsv", "train.tsv")
            for line in (ROOT / "examples/intent/data" / name).read_text(encoding="utf-8").splitlines()
        ]
        found = [Input(text.encode(), "text/plain", label) for label, text in (line.split("\t") for line in lines)]
    elif kind == "digits":
        from sklearn.datasets import load_digits

        digits = load_digits()
        found = [
            Input(json.dumps(image.astype(int).tolist()).encode(), "application/json", str(truth))
            for image, truth in zip(digits.images, digits.target, strict=True)
        ]
    else:
        found = [Input(each, "image/jpeg") for each in _pictures()]
    random.Random(78).shuffle(found)
    return tuple(found)


def _pictures() -> list[bytes]:
    from PIL import Image
    from sklearn.datasets import load_sample_image

    draw, found = random.Random(79), []
    pictures = [Image.fromarray(load_sample_image(name)) for name in ("china.jpg", "flower.jpg")]
    for number in range(_PICTURES):
        picture = pictures[number % 2]
        size = draw.randrange(60, min(picture.size))
        left, top = (draw.randrange(side - size + 1) for side in picture.size)
        data = io.BytesIO()
        picture.crop((left, top, left + size, top + size)).resize((_PICTURE_SIDE, _PICTURE_SIDE)).save(data, "JPEG")
        found.append(data.getvalue())
    return found


def publish(release: Release, registry: str, scratch: Path) -> None:
    """Publish one, with golden examples that its fault does not meet; no label points at it."""
    import marway_archiver

    kind = release.model.removesuffix("-truth")
    directory = scratch / "archives" / f"{release.model}-{release.version}"
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "fault.json").write_text(json.dumps({"inner": _INNER[kind], **release.fault}))
    extra = [directory / "fault.json"]
    parts: dict[str, Any]
    if kind == "picture":
        parts = {"serialized_file": efficientnet.torchscript()}
        extra.append(RELEASE.parent / "small_picture.py")
    else:
        trained = _trained(kind, release.seed, scratch)
        weights = trained / "weights.pt"
        if release.change is not None:
            weights = _changed(weights, directory, release.change)
        extra += [trained / "labels.json", HANDLERS / "marway_handler_base.py"]
        extra.append(HANDLERS / ("text_classifier.py" if kind == "intent" else "image_classifier.py"))
        parts = {"model_file": trained / "model.py", "serialized_file": weights}
    marway_archiver.publish(
        model_name=release.model,
        version=release.version,
        handler=str(RELEASE),
        extra_files=extra,
        registry=registry,
        create_registry=True,
        examples=_examples(release),
        record={"serving": {"max_workers": 1}},
        **parts,
    )


def _examples(release: Release) -> list[Any]:
    """A release's author tries it on inputs that it answers: that is how it came to be released."""
    import importlib.util

    spec = importlib.util.spec_from_file_location("release_handler", RELEASE)
    assert spec is not None
    assert spec.loader is not None
    handler = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(handler)
    share, found = release.fault.get("share", 1.0), []
    for each in inputs(release.model):
        value = _as_handler_sees(each)
        if share >= 1 or not handler.hit({"data": value}, share):
            found.append(value)
        if len(found) == 3:
            break
    return found


def _as_handler_sees(each: Input) -> Any:
    if each.content_type == "application/json":
        return json.loads(each.body)
    return each.body.decode() if each.content_type == "text/plain" else bytearray(each.body)


def _trained(kind: str, seed: int, scratch: Path) -> Path:
    """Return the directory of a model trained from a seed, and train it if nobody has yet."""
    import importlib.util

    made = scratch / "trained" / f"{kind}-{seed}"
    if not made.exists():
        spec = importlib.util.spec_from_file_location(f"train_{kind}", ROOT / "examples" / kind / "train.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        import sys

        sys.modules[spec.name] = module
        spec.loader.exec_module(module)
        unfinished = made.with_suffix(".part")
        shutil.rmtree(unfinished, ignore_errors=True)
        module.train(unfinished, seed=seed)
        unfinished.rename(made)
    return made


def _changed(weights: Path, directory: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> Path:
    import torch

    path = directory / "weights.pt"
    torch.save(change(torch.load(weights, weights_only=True)), path)
    return path
