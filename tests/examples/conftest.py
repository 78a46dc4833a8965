import pytest

from support.trained import Trained, trained


@pytest.fixture(scope="session")
def intent(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return trained("intent", tmp_path_factory)


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return trained("digits", tmp_path_factory)
