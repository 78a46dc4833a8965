from collections.abc import Iterator

import pytest

from support.trained import Served, served, trained


@pytest.fixture(scope="session")
def intent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(trained("intent", tmp_path_factory).directory) as handler:
        yield handler


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(trained("digits", tmp_path_factory).directory) as handler:
        yield handler
