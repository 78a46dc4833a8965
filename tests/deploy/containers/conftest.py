"""Images are built once a session, for all tests that run containers."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support import podman as support

TAG = "test"


@pytest.fixture(scope="session")
def images() -> Iterator[support.Podman]:
    """A Podman that has all images; skips where containers cannot be had."""
    if why := support.missing():
        pytest.skip(f"no container engine: {why}")
    # Podman refuses a path of more than 50 characters, which pytest's own directories have.
    with support.podman(Path(tempfile.mkdtemp(prefix="marway-podman-"))) as engine:
        began = time.monotonic()
        try:
            engine.make_base()
        except support.NoBase as exc:
            pytest.skip(str(exc))
        print(f"\nbase image after {time.monotonic() - began:.0f} s")
        for image in support.IMAGES:
            began = time.monotonic()
            engine.build(image, TAG)
            size = support.image_size(engine, f"localhost/{image}:{TAG}")
            base = support.image_size(engine, support.BASE_IMAGE)
            took = time.monotonic() - began
            print(f"{image}: {took:.0f} s, {size / 1e6:.0f} MB, {(size - base) / 1e6:.0f} of them its own")
        yield engine
