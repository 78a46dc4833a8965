"""An intent classifier in the manner of fastText: hashed words and parts of words, averaged, then two linear layers.

TorchServe's eager mode builds the one class of this file without arguments, so the defaults are the architecture.
"""

import re
import zlib
from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor, nn

WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)*")
LONGEST_WORD = 40  # characters; what is longer is no word, and would only make n-grams


def words(text: str) -> list[str]:
    """Split into lower-case words; an apostrophe inside a word belongs to it."""
    return [word[:LONGEST_WORD] for word in WORD.findall(text.lower().replace("’", "'"))]


def _bucket(kind: str, value: str, buckets: int) -> int:
    # CRC-32 and not hash(): the same in every process and on every machine.
    return zlib.crc32(f"{kind}:{value}".encode()) % buckets


@lru_cache(maxsize=8192)
def _word_features(word: str, buckets: int) -> tuple[int, ...]:
    """Hash a word and its character n-grams of 3 to 5, which carry meaning over to words never seen."""
    marked = f"<{word}>"
    grams = [marked[at : at + n] for n in (3, 4, 5) for at in range(len(marked) - n + 1)]
    return (
        _bucket("word", word, buckets),
        *(_bucket("part", gram, buckets) for gram in grams if gram != marked),
    )


class IntentClassifier(nn.Module):
    """Gives logits over intents.

    Args:
        buckets: rows of the embedding table that features are hashed into.
        embedding_dim: width of an embedding.
        hidden_dim: width of the hidden layer.
        labels: number of intents.
        dropout: share of activations dropped in training.
    """

    def __init__(
        self,
        buckets: int = 16_384,
        embedding_dim: int = 64,
        hidden_dim: int = 128,
        labels: int = 12,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        self.buckets = buckets
        self.embedding = nn.EmbeddingBag(buckets, embedding_dim, mode="mean")
        nn.init.normal_(self.embedding.weight, std=0.1)
        self.layers = nn.Sequential(
            nn.Dropout(dropout),
            nn.Linear(embedding_dim, hidden_dim),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden_dim, labels),
        )

    def encode(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Turn N texts into the two int64 tensors of an embedding bag: all features in one row, and N offsets."""
        features: list[int] = []
        offsets: list[int] = []
        for text in texts:
            offsets.append(len(features))
            found = words(text)
            for word in found:
                features.extend(_word_features(word, self.buckets))
            pairs = zip(["^", *found], [*found, "$"], strict=True)
            features.extend(_bucket("pair", f"{left} {right}", self.buckets) for left, right in pairs)
        return torch.tensor(features, dtype=torch.int64), torch.tensor(offsets, dtype=torch.int64)

    def forward(self, features: Tensor, offsets: Tensor) -> Tensor:
        """Score encoded texts: logits of shape (N, labels)."""
        logits: Tensor = self.layers(self.embedding(features, offsets))
        return logits
