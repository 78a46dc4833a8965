"""Hugging Face models: a directory that `save_pretrained` wrote, of the model and of its tokenizer or processor."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from marway.errors import InvalidArchive, clip
from marway.records import Signature, TensorSpec
from marway_archiver.importers.imported import Imported, file_below, pinned

__all__ = ["import_huggingface"]

_TASKS: Final = {
    "ForSequenceClassification": "text-classification",
    "ForTokenClassification": "token-classification",
    "ForCausalLM": "text-generation",
    "LMHeadModel": "text-generation",
    "ForImageClassification": "image-classification",
    "Model": "embedding",
}
"""How the name of a model's class ends, and what it is served for (`marway_handlers/huggingface.py`)."""
_WEIGHTS: Final = (".safetensors", ".bin")
_FILES: Final = frozenset(
    {
        *("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "tokenizer.model"),
        *("special_tokens_map.json", "added_tokens.json", "vocab.json", "vocab.txt", "merges.txt", "spiece.model"),
        *("sentencepiece.bpe.model", "preprocessor_config.json", "processor_config.json", "chat_template.jinja"),
        *("model.safetensors.index.json", "pytorch_model.bin.index.json"),
    }
)


def import_huggingface(source: Path) -> Imported:
    """Read what a directory of Hugging Face's says of its model; nothing is loaded, and nothing is fetched.

    Raises:
        InvalidArchive: It is none, runs code of its own, or is of a kind that the handler does not serve.
    """
    config = _json(file_below(source, "config.json", "a Hugging Face model"), source / "config.json")
    if "auto_map" in config:
        raise InvalidArchive(
            f"{source} needs code of its own (auto_map in config.json), which is not run unseen: write a handler that "
            "imports that code, and pack it with --extra-files"
        )
    architectures = config.get("architectures")
    architecture = str(architectures[0]) if isinstance(architectures, list) and architectures else ""
    task = next((task for ending, task in _TASKS.items() if architecture.endswith(ending)), None)
    if task is None:
        raise InvalidArchive(
            f"{source}: a {architecture or 'model of no named class'} is not served by the ready handler: it serves "
            f"{', '.join(sorted(set(_TASKS.values())))}; write a handler for it, and pack it with --extra-files"
        )
    files = [each for each in sorted(source.iterdir()) if each.name in _FILES or each.suffix in _WEIGHTS]
    safe = [each for each in files if each.suffix == ".safetensors"]
    pickled = [each for each in files if each.suffix == ".bin" and each.name.startswith("pytorch_model")]
    files = [each for each in files if each.suffix != ".bin" or each in pickled]  # such as training_args.bin
    if not safe and not pickled:
        raise InvalidArchive(f"{source} holds no weights (*.safetensors): save them by model.save_pretrained(DIR)")
    words = task == "image-classification"
    needed = "preprocessor_config.json" if words else "tokenizer_config.json"
    if not (source / needed).is_file():
        saver = "processor" if words else "tokenizer"
        raise InvalidArchive(f"{source} has no {needed}: save it beside the model by {saver}.save_pretrained(DIR)")
    if safe:
        files = [each for each in files if each not in pickled and each.name != "pytorch_model.bin.index.json"]
    warnings = () if safe else (f"{pickled[0].name} is a pickle, of which only weights are read: safetensors is safer",)
    says = config.get("transformers_version")
    requirements = [pinned("transformers", "a Hugging Face model"), pinned("safetensors", "a Hugging Face model")]
    if words:
        requirements.append(pinned("pillow", "an image model"))
    return Imported(
        handler="huggingface",
        framework=("transformers", str(says) if says else None),
        extra_files=tuple(files),
        add_files={"huggingface.json": json.dumps({"task": task}).encode() + b"\n"},
        requirements=tuple(requirements),
        signature=_signature(task),
        warnings=warnings,
    )


def _signature(task: str) -> Signature:
    name = "image" if task == "image-classification" else "text"
    return Signature(
        inputs=(TensorSpec(name=name, datatype="BYTES", shape=(-1,)),),
        outputs=(TensorSpec(name="prediction", datatype="BYTES", shape=(-1,)),),
    )


def _json(data: bytes, file: Path) -> dict[str, Any]:
    try:
        found = json.loads(data)
    except (ValueError, RecursionError) as exc:
        raise InvalidArchive(f"{file} is not JSON: {clip(str(exc), 120)}") from exc
    if not isinstance(found, dict):
        raise InvalidArchive(f"{file} is no JSON object")
    return found
