import importlib
import pkgutil

import pytest

import marway_gateway

MODULES = [
    found.name
    for found in pkgutil.walk_packages(marway_gateway.__path__, "marway_gateway.")
    if ".proto." not in found.name and not found.ispkg
]


def _constants_first(name: str) -> tuple[bool, bool, str]:
    """Return the place that ruff gives a name: constants, then classes, then functions."""
    return not name.isupper(), not name[0].isupper(), name


@pytest.mark.parametrize("name", MODULES)
def test_exports(name: str) -> None:
    """Each module says in order what it offers, and all of it is there."""
    module = importlib.import_module(name)
    assert module.__all__ == sorted(module.__all__, key=_constants_first)
    assert all(hasattr(module, exported) for exported in module.__all__)
