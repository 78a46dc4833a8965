"""Train the digit classifier, and publish it to a registry or leave its files in a directory."""

import argparse
import hashlib
import importlib.util
import json
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import sklearn
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn

HERE = Path(__file__).resolve().parent
SAMPLES = HERE / "samples"
REQUIRED_ACCURACY = 0.95
BATCH = 64
EPOCHS = 20
HELDOUT_SHARE = 0.2


@dataclass(frozen=True)
class TrainResult:
    """What training left behind: the share of held-out images it got right (0 to 1), and an archive's files."""

    accuracy: float
    model_file: Path
    serialized_file: Path
    extra_files: tuple[Path, ...]

    @property
    def files(self) -> tuple[Path, ...]:
        return (self.model_file, self.serialized_file, *self.extra_files)


def load_model_module() -> ModuleType:
    """Import model.py by its path: archives and examples alike call theirs so."""
    spec = importlib.util.spec_from_file_location("digits_model", HERE / "model.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def train(out: Path, *, seed: int = 7) -> TrainResult:
    """Train on one thread, measure on the held-out images and write the archive's files into `out`.

    The same seed, PyTorch and kind of processor give the same bytes.
    """
    started = time.monotonic()
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    digits = load_digits()
    parts = train_test_split(
        digits.images.astype("float32"),
        digits.target,
        test_size=HELDOUT_SHARE,
        stratify=digits.target,
        random_state=0,  # one split for all seeds, so that their accuracies compare
    )
    pixels, heldout, targets, truth = (torch.from_numpy(part) for part in parts)
    labels = [str(name) for name in digits.target_names]
    model = load_model_module().DigitClassifier(labels=len(labels))
    print(f"digits: {len(pixels)} images, {len(labels)} classes, {len(heldout)} held out", flush=True)

    optimizer = torch.optim.AdamW(model.parameters(), lr=0.003)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS)
    loss_of = nn.CrossEntropyLoss()
    for epoch in range(1, EPOCHS + 1):
        total = 0.0
        for batch in torch.randperm(len(pixels)).split(BATCH):
            loss = loss_of(model(pixels[batch]), targets[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item() * len(batch)
        schedule.step()
        if epoch % 5 == 0:
            print(f"epoch {epoch:2d}/{EPOCHS}  loss {total / len(pixels):.3f}", flush=True)

    model.eval()
    with torch.inference_mode():
        right = int((model(heldout).argmax(dim=1) == truth).sum())
    accuracy = right / len(heldout)
    seconds = time.monotonic() - started
    print(f"held-out accuracy {accuracy:.4f} ({right} of {len(heldout)}), {seconds:.1f} s", flush=True)

    out.mkdir(parents=True, exist_ok=True)
    result = TrainResult(accuracy, out / "model.py", out / "weights.pt", (out / "labels.json",))
    shutil.copyfile(HERE / "model.py", result.model_file)
    torch.save(model.state_dict(), result.serialized_file)
    result.extra_files[0].write_text(json.dumps(labels, indent=2) + "\n", encoding="utf-8")
    return result


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

    handler = importlib.util.find_spec("marway_handlers.image_classifier")
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
        examples=[path for name in ("0", "4", "7") for path in (SAMPLES / f"{name}.json", SAMPLES / f"{name}.png")],
        record={
            "framework": "pytorch",
            "framework_version": torch.__version__,
            "algorithm": "digit-classification",
            "signature": {
                "inputs": [{"name": "image", "datatype": "FP32", "shape": [-1, 8, 8]}],
                "outputs": [{"name": "prediction", "datatype": "BYTES", "shape": [-1]}],
            },
            "training": {
                "dataset": f"scikit-learn {sklearn.__version__} load_digits",
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
    parser.add_argument("--name", default="digits", help="model name (default: %(default)s)")
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
