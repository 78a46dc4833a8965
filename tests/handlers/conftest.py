from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.trained import TENSOR_MODEL, InTorchServe, Served, in_torchserve, lay_out, served, trained, untrained

TEXT_MODEL = """\
import torch


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.table = torch.nn.EmbeddingBag(256, 8)

    def encode(self, texts):
        codes = [[byte for byte in text.encode()] for text in texts]
        starts = [0]
        for each in codes[:-1]:
            starts.append(starts[-1] + len(each))
        return torch.tensor([code for each in codes for code in each]), torch.tensor(starts)

    def forward(self, codes, starts):
        return self.table(codes, starts)
"""

Make = Callable[[str, str], Path]


@pytest.fixture(scope="session")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Make:
    """Makes an unpacked archive of a shipped handler and the source of a model, with random weights."""

    def make(handler: str, source: str) -> Path:
        directory = tmp_path_factory.mktemp(handler)
        lay_out(directory, handler, untrained(tmp_path_factory.mktemp("files"), source))
        return directory

    return make


@pytest.fixture(scope="session")
def tensor_directory(unpacked: Make) -> Path:
    return unpacked("tensor", TENSOR_MODEL)


@pytest.fixture(scope="session")
def embedding_directory(unpacked: Make) -> Path:
    return unpacked("embedding", TEXT_MODEL)


@pytest.fixture(scope="session")
def intent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(trained("intent", tmp_path_factory).directory) as handler:
        yield handler


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(trained("digits", tmp_path_factory).directory) as handler:
        yield handler


@pytest.fixture(scope="session")
def streaming_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The intent model under the streaming handler."""
    directory = tmp_path_factory.mktemp("streaming")
    lay_out(directory, "streaming_text", trained("intent", tmp_path_factory).result.files)
    return directory


@pytest.fixture(scope="session")
def streaming(streaming_directory: Path) -> Iterator[Served]:
    with served(streaming_directory) as handler:
        yield handler


@pytest.fixture(scope="session")
def tensor(tensor_directory: Path) -> Iterator[Served]:
    with served(tensor_directory) as handler:
        yield handler


@pytest.fixture(scope="session")
def embedding(embedding_directory: Path) -> Iterator[Served]:
    with served(embedding_directory) as handler:
        yield handler


@pytest.fixture
def intent_in_torchserve(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InTorchServe]:
    with in_torchserve(trained("intent", tmp_path_factory).directory) as handler:
        yield handler
