import inspect
from importlib import import_module

import pytest

import marway_handlers


def test_exported_names_are_sorted_and_there() -> None:
    """Each exported name resolves to a class of its own name, and the list is sorted."""
    assert marway_handlers.__all__ == sorted(marway_handlers.__all__)
    for name in marway_handlers.__all__:
        assert getattr(marway_handlers, name).__name__ == name


def test_an_unknown_name_is_an_attribute_error() -> None:
    """The lazy package answers a wrong name as any module does."""
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = marway_handlers.Nothing


@pytest.mark.parametrize("name", ["embedding", "image_classifier", "streaming_text", "tensor", "text_classifier"])
def test_a_handler_file_defines_one_class_and_no_handle(name: str) -> None:
    """TorchServe takes the one class of a handler file, and only where no function is called handle."""
    module = import_module(f"marway_handlers.{name}")
    classes = [item for item in vars(module).values() if inspect.isclass(item) and item.__module__ == module.__name__]
    assert len(classes) == 1
    assert not hasattr(module, "handle")
