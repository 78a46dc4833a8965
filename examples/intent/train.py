"""Train the intent classifier, and publish it to a registry or leave its files in a directory."""

import argparse
import hashlib
import importlib.util
import json
import random
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import torch
from torch import nn

HERE = Path(__file__).resolve().parent
REQUIRED_ACCURACY = 0.9
BATCH = 64
EPOCHS = 20
EXAMPLES = ["wake me up at half past six", {"text": "will it rain in Oslo tomorrow"}, "play some jazz"]
WORD_DROPOUT = 0.15  # share of words hidden from a sentence, so that no single one decides


@dataclass(frozen=True)
class TrainResult:
    """What training left behind: the share of held-out sentences it got right (0 to 1), and an archive's files."""

    accuracy: float
    model_file: Path
    serialized_file: Path
    extra_files: tuple[Path, ...]

    @property
    def files(self) -> tuple[Path, ...]:
        return (self.model_file, self.serialized_file, *self.extra_files)


def read(name: str) -> list[tuple[str, str]]:
    """Read the (label, sentence) pairs of a file in data/."""
    lines = (HERE / "data" / name).read_text(encoding="utf-8").splitlines()
    return [(label, sentence) for label, sentence in (line.split("\t") for line in lines)]


def load_model_module() -> ModuleType:
    """Import model.py by its path: archives and examples alike call theirs so."""
    spec = importlib.util.spec_from_file_location("intent_model", HERE / "model.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def train(out: Path, *, seed: int = 7) -> TrainResult:
    """Train on one thread, measure on the held-out sentences and write the archive's files into `out`.

    The same seed, PyTorch and kind of processor give the same bytes.
    """
    started = time.monotonic()
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    rng = random.Random(seed)
    examples, heldout = read("train.tsv"), read("heldout.tsv")
    labels = sorted({label for label, _ in examples})
    module = load_model_module()
    model = module.IntentClassifier(labels=len(labels))
    print(f"intent: {len(examples)} sentences, {len(labels)} intents, {len(heldout)} held out", flush=True)

    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.1)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS)
    loss_of = nn.CrossEntropyLoss(label_smoothing=0.1)
    for epoch in range(1, EPOCHS + 1):
        rng.shuffle(examples)
        total = 0.0
        for start in range(0, len(examples), BATCH):
            batch = examples[start : start + BATCH]
            thinned = [_thin(module.words(sentence), rng) for _, sentence in batch]
            targets = torch.tensor([labels.index(label) for label, _ in batch])
            loss = loss_of(model(*model.encode(thinned)), targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item() * len(batch)
        schedule.step()
        if epoch % 5 == 0:
            print(f"epoch {epoch:2d}/{EPOCHS}  loss {total / len(examples):.3f}", flush=True)

    model.eval()
    with torch.inference_mode():
        guesses = model(*model.encode([sentence for _, sentence in heldout])).argmax(dim=1).tolist()
    right = sum(labels[guess] == label for guess, (label, _) in zip(guesses, heldout, strict=True))
    accuracy = right / len(heldout)
    seconds = time.monotonic() - started
    print(f"held-out accuracy {accuracy:.4f} ({right} of {len(heldout)}), {seconds:.1f} s", flush=True)

    out.mkdir(parents=True, exist_ok=True)
    result = TrainResult(accuracy, out / "model.py", out / "weights.pt", (out / "labels.json",))
    shutil.copyfile(HERE / "model.py", result.model_file)
    torch.save(model.state_dict(), result.serialized_file)
    result.extra_files[0].write_text(json.dumps(labels, indent=2) + "\n", encoding="utf-8")
    return result


def _thin(words: list[str], rng: random.Random) -> str:
    return " ".join([word for word in words if rng.random() >= WORD_DROPOUT] or words)


def digest(*paths: Path) -> str:
    """Name files by their content: the first twelve digits of one SHA-256 over them all."""
    return hashlib.sha256(b"".join(path.read_bytes() for path in paths)).hexdigest()[:12]


def publish_to(
    registry: str,
    result: TrainResult,
    *,
    name: str,
    version: str,
    label: str | None,
    gateway: str | None = None,
    create_registry: bool = False,
) -> None:
    """Pack, prove and publish the trained files as one version, and point the label at it."""
    from marway_archiver import publish  # training alone needs no Marway

    handler = importlib.util.find_spec("marway_handlers.text_classifier")
    assert handler is not None
    assert handler.origin is not None
    record = publish(
        model_name=name,
        version=version,
        registry=registry,
        create_registry=create_registry,
        label=label,
        gateway=gateway,
        handler=handler.origin,
        model_file=result.model_file,
        serialized_file=result.serialized_file,
        extra_files=list(result.extra_files),
        examples=EXAMPLES,
        training_data=[{"input": sentence, "output": {"label": intent}} for intent, sentence in read("train.tsv")],
        record={
            "framework": "pytorch",
            "framework_version": torch.__version__,
            "algorithm": "intent-classification",
            "signature": {
                "inputs": [{"name": "text", "datatype": "BYTES", "shape": [-1]}],
                "outputs": [{"name": "prediction", "datatype": "BYTES", "shape": [-1]}],
            },
            "training": {
                "dataset": f"examples/intent/data/train.tsv sha256:{digest(HERE / 'data' / 'train.tsv')}",
                "code_version": f"sha256:{digest(HERE / 'train.py', HERE / 'model.py')}",
                "metrics": {"heldout_accuracy": round(result.accuracy, 4)},
            },
        },
    )
    print(f"published {name} {version} as {record.id}" + (f"; {label} points at it" if label else ""))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, metavar="DIR", help="leave the archive's files here")
    parser.add_argument(
        "--registry", metavar="URL", help="publish to this registry: file:///path or s3://bucket/prefix"
    )
    parser.add_argument("--create-registry", action="store_true", help="make the registry if there is none yet")
    parser.add_argument("--name", default="intent", help="model name (default: %(default)s)")
    parser.add_argument("--version", default="1.0", help="version to publish (default: %(default)s)")
    parser.add_argument("--label", default="PROD", help="label to point at it, '' for none (default: %(default)s)")
    parser.add_argument("--gateway", metavar="URL", help="admin port of the gateway that moves the label, with proof")
    parser.add_argument("--seed", type=int, default=7, help="random seed (default: %(default)s)")
    args = parser.parse_args()
    if args.out is None and args.registry is None:
        parser.error("say where to: --out DIR, --registry URL, or both")
    with tempfile.TemporaryDirectory() as scratch:
        result = train(args.out or Path(scratch), seed=args.seed)
        if result.accuracy <= REQUIRED_ACCURACY:
            print(f"held-out accuracy {result.accuracy:.4f} is not above {REQUIRED_ACCURACY}", file=sys.stderr)
            return 1
        if args.registry:
            publish_to(
                args.registry,
                result,
                name=args.name,
                version=args.version,
                label=args.label or None,
                gateway=args.gateway,
                create_registry=args.create_registry,
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
