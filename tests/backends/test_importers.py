"""Models of MLflow and Hugging Face, made and packed in an environment that has both: their handlers answer."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from support.every import LONG
from support.servers.environments import environment

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(not LONG, reason="makes an environment, and imports transformers: make test-backends"),
]

MLFLOW = """\
import sys

import mlflow.pyfunc
import pandas
from mlflow.models import infer_signature


class Doubles(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        return model_input["a"] * 2 + model_input["b"]


frame = pandas.DataFrame({"a": [1.0, 2.0], "b": [3.0, 4.0]})
mlflow.pyfunc.save_model(
    sys.argv[1],
    python_model=Doubles(),
    signature=infer_signature(frame, frame["a"]),
    pip_requirements=["mlflow-skinny"],
)
"""
HUGGING_FACE = """\
import sys
from pathlib import Path

import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, processors

out = Path(sys.argv[1])
words = "how are you wake me up at seven play some jazz in the kitchen".split()
vocab = {word: i for i, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *words])}
tokenizer = Tokenizer(models.WordLevel(vocab, unk_token="[UNK]"))
tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
tokenizer.post_processor = processors.TemplateProcessing(
    single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
)
fast = transformers.PreTrainedTokenizerFast(
    tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
)
sizes = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "initializer_range": 1.0,
}
text = {**sizes, "vocab_size": len(vocab), "max_position_embeddings": 32}
torch.manual_seed(0)
for name, kind, labels in (
    ("words", transformers.BertForSequenceClassification, ["ask", "tell", "play"]),
    ("tokens", transformers.BertForTokenClassification, ["O", "TIME"]),
    ("vectors", transformers.BertModel, ["none"]),
):
    config = transformers.BertConfig(**text, id2label=dict(enumerate(labels)))
    kind(config).save_pretrained(out / name)
    fast.save_pretrained(out / name)
config = transformers.GPT2Config(
    vocab_size=len(vocab), n_embd=16, n_layer=2, n_head=2, n_positions=64, initializer_range=1.0, bos_token_id=2,
    eos_token_id=3,
)
told = transformers.GPT2LMHeadModel(config)
told.generation_config.max_new_tokens = 5
told.save_pretrained(out / "told")
fast.save_pretrained(out / "told")
config = transformers.ViTConfig(**sizes, image_size=32, patch_size=16, num_labels=2)
transformers.ViTForImageClassification(config).save_pretrained(out / "pictures")
transformers.ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(out / "pictures")
"""
TEXTS = ("how are you", "wake me up at seven", '{"text": "play some jazz in the kitchen"}')
PICTURES = [
    f"@{Path(__file__).parents[2] / 'handlers/marway_dev/kinds/image/examples' / name}.png"
    for name in ("bright", "dark")
]


def run(*words: str) -> str:
    done = subprocess.run(
        [str(environment("importers") / "python"), *words], capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def packed(kind: str, source: Path, examples: list[str] | tuple[str, ...]) -> tuple[dict[str, Any], list[Any]]:
    """Pack a model; return what was said of it, and the values of its golden answers."""
    flags = [word for example in examples for word in ("--example", example)]
    place = ("--model-name", "m", "--version", "1", "--export-path", str(source.parent), "--force")
    said = json.loads(run("-m", "marway", "pack", "--from", kind, str(source), *place, *flags, "--json"))
    golden = json.loads((source.parent / "m.golden.json").read_text())
    return said, [each["answer"]["value"] for each in golden["examples"]]


def test_a_model_of_mlflow_answers(tmp_path: Path) -> None:
    """Columns by name, in their order, and whole numbers for floats; MLflow's own requirements are the archive's."""
    (tmp_path / "make.py").write_text(MLFLOW)
    run(str(tmp_path / "make.py"), str(tmp_path / "model"))
    said, values = packed("mlflow", tmp_path / "model", ['{"a": 1, "b": 2}', "[3, 4.5]", '{"data": {"a": 0, "b": 1}}'])
    assert values == [{"prediction": 4.0}, {"prediction": 10.5}, {"prediction": 1.0}]
    assert said["golden"]["batch"]
    assert "trust" in said["warnings"][0]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("huggingface")
    (directory / "make.py").write_text(HUGGING_FACE)
    run(str(directory / "make.py"), str(directory))
    return directory


@pytest.mark.parametrize(
    ("name", "key"),
    [("words", "scores"), ("tokens", "entities"), ("vectors", "embedding"), ("told", "text"), ("pictures", "scores")],
)
def test_models_of_hugging_face_answer_in_batches_as_alone(models: Path, name: str, key: str) -> None:
    """Tiny models with random weights, one for each task: padded batches of texts of other lengths change nothing."""
    said, values = packed("huggingface", models / name, PICTURES if name == "pictures" else TEXTS)
    assert all(key in value for value in values)
    assert said["golden"]["batch"], said["golden"]["batch_reason"]
    assert said["warnings"] == []
