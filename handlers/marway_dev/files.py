"""The files of a handler that is being written, laid out as a worker finds those of an archive."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from marway.archives.rules import Calling
from marway.errors import InvalidInput
from marway.refs import check_model_name
from marway_archiver.contents.manifest import encode_manifest
from marway_archiver.packing import collect

__all__ = ["VERSION", "HandlerFiles", "Laid"]

VERSION: Final = "dev"
"""What answers say for their version: none is made."""
_CONFIG: Final = "model-config.yaml"
"""What TorchServe's own examples call the configuration file."""
_NOT_SERVED: Final = frozenset({"__pycache__", "__MACOSX", "venv", "node_modules"})


@dataclass(frozen=True, slots=True)
class Laid:
    """Files as a worker is given them.

    Attributes:
        directory: Where they are; links to the files themselves.
        handler: The handler, as a manifest names it.
        calling: How it is called.
        device_type: `cpu` or `gpu`, where the configuration file says so.
        timeouts_s: How long loading may take, and a call, where the configuration file says so.
        warnings: What `marway pack` would warn of.
    """

    directory: Path
    handler: str
    calling: Calling
    device_type: str | None
    timeouts_s: tuple[float | None, float | None]
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class HandlerFiles:
    """What is served: the arguments mean what they mean to `marway pack`.

    With neither model, weights nor further files, the handler's own directory stands for the archive.

    Attributes:
        handler: `FILE.py` or `FILE.py:FUNCTION`.
        name: The model's name.
    """

    handler: str
    name: str
    model_file: Path | None = None
    serialized_file: Path | None = None
    extra_files: str | None = None
    config_file: Path | None = None

    @property
    def file(self) -> Path:
        """The handler's file."""
        return Path(self.handler.partition(":")[0])

    @property
    def whole_directory(self) -> bool:
        """Whether all that lies beside the handler is served with it."""
        return self.model_file is None and self.serialized_file is None and self.extra_files is None

    def check(self) -> None:
        """Refuse what is not there at all, before anything is started.

        Raises:
            InvalidInput, InvalidReference: There is no such handler, or no model can have that name.
        """
        check_model_name(self.name)
        if self.file.suffix != ".py" or not self.file.is_file():
            raise InvalidInput(
                f"{self.file} is no Python file that is there: give the handler's, such as handler.py, or make one "
                "with `marway new`"
            )

    def lay(self, directory: Path) -> Laid:
        """Link the files into a new ``directory``, with the manifest that `marway pack` would write.

        Raises:
            InvalidArchive: As for `marway pack`: a file is missing, the source or the configuration is wrong.
        """
        collected = collect(
            model_name=self.name,
            version=VERSION,
            handler=self.handler,
            model_file=self.model_file,
            serialized_file=self.serialized_file,
            extra_files=self.extra_files,
            config_file=self.config_file or self._config_beside(),
            final=directory,
        )
        directory.mkdir()
        for name, entry in collected.entries.items():
            target = directory / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if entry.path is not None:
                target.symlink_to(entry.path.absolute())
        if self.whole_directory:
            for beside in self._beside():
                if not os.path.lexists(directory / beside.name):
                    (directory / beside.name).symlink_to(beside.absolute())
        manifest = directory / "MAR-INF/MANIFEST.json"
        manifest.parent.mkdir(exist_ok=True)
        manifest.write_bytes(encode_manifest(collected.manifest))
        config, name = collected.config, collected.manifest.model.handler
        if config is None:
            return Laid(directory, name, Calling(), None, (None, None), collected.warnings)
        timeouts_s = config.startup_timeout_s, config.response_timeout_s
        return Laid(directory, name, config.calling, config.device_type, timeouts_s, collected.warnings)

    def watched(self) -> frozenset[Path]:
        """Return the directories whose files are looked at for changes: each alone, without what is below it."""
        files = (self.file, self.model_file, self.serialized_file, self.config_file)
        found = {file.absolute().parent for file in files if file is not None}
        for item in filter(None, map(str.strip, (self.extra_files or "").split(","))):
            path = Path(item)
            found.add(path.absolute() if path.is_dir() else path.absolute().parent)
        if self.whole_directory:
            found |= {beside.absolute() for beside in self._beside() if beside.is_dir()}
        return frozenset(each for each in found if each.is_dir())

    def shown(self, text: str, directory: Path) -> str:
        """Return a text in which paths of the ``directory`` that files were laid in are those of the files."""
        return text.replace(f"{directory}/", self._prefix())

    def trimmed(self, trace: str, directory: Path) -> str:
        """Return a traceback without the frames of others, as far as the author's own code has one in it."""
        kept: list[str] = []
        left_out = 0
        frames = list(_frames(trace.splitlines()))
        own = any(_is_frame(frame) and str(directory) in frame[0] for frame in frames)
        for frame in frames:
            if own and _is_frame(frame) and str(directory) not in frame[0]:
                left_out += 1
                continue
            kept += frame
        if left_out:
            kept.append(f"({left_out} {'frame' if left_out == 1 else 'frames'} of libraries left out)")
        return self.shown("\n".join(kept), directory)

    def _prefix(self) -> str:
        parent = self.file.parent
        return "" if parent == Path() else f"{parent}/"

    def _beside(self) -> list[Path]:
        return [
            each
            for each in sorted(self.file.absolute().parent.iterdir())
            if not each.name.startswith(".") and each.name not in _NOT_SERVED
        ]

    def _config_beside(self) -> Path | None:
        """Return the configuration file in the handler's directory, where that stands for the archive."""
        if not self.whole_directory:
            return None
        found = self.file.parent / _CONFIG
        return found if found.is_file() else None


def _is_frame(lines: Sequence[str]) -> bool:
    return lines[0].startswith('  File "')


def _frames(lines: Sequence[str]) -> Iterator[list[str]]:
    """Yield the lines of a traceback: each frame with its source, each other line alone."""
    frame: list[str] = []
    for line in lines:
        if frame and line.startswith("    "):
            frame.append(line)
            continue
        if frame:
            yield frame
            frame = []
        if _is_frame([line]):
            frame = [line]
        else:
            yield [line]
    if frame:
        yield frame
