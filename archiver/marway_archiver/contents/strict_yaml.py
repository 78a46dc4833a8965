"""YAML that every parser reads alike: one document, no tags, no merge keys, no key twice; errors have lines.

Anchors and aliases are accepted while what they expand to stays small: a few lines of them can stand for more values
than there is memory ("billion laughs"), which whoever copies or prints them would find out.
"""

from __future__ import annotations

from dataclasses import dataclass

import yaml

from marway.errors import InvalidArchive, clip

__all__ = ["MAX_ALIASES", "MAX_DEPTH", "MAX_NODES", "YamlFile"]

MAX_ALIASES = 50
"""Most aliases (`*name`); SnakeYAML takes no more that stand for lists or mappings."""
MAX_NODES = 50_000
"""Most values that the document may expand to; without an alias a file of 64 KiB has fewer."""

MAX_DEPTH = 32
"""Deepest nesting of lists and mappings."""


@dataclass(frozen=True, slots=True)
class YamlFile:
    """A YAML file: its name for messages, and how many bytes it may have."""

    label: str
    limit: int

    def fail(self, node: yaml.Node, message: str) -> InvalidArchive:
        """Return the error `LABEL:LINE: MESSAGE` for where ``node`` begins."""
        return self.fail_at(node.start_mark.line, message)

    def fail_at(self, line: int, message: str) -> InvalidArchive:
        """Return the same for a line, counted from 0."""
        return InvalidArchive(f"{self.label}:{line + 1}: {message}")

    def compose(self, data: bytes) -> yaml.Node | None:
        """Return the root of the document ``data``, none of whose parts is tagged, named twice or holds itself.

        Raises:
            InvalidArchive: It is no such document.
        """
        if len(data) > self.limit:
            raise self.fail_at(0, f"has {len(data)} bytes: at most {self.limit} are accepted")
        try:
            text = data.decode()
        except UnicodeDecodeError as exc:
            raise self.fail_at(data.count(b"\n", 0, exc.start), "is not UTF-8") from exc
        if text.startswith("\ufeff"):
            raise self.fail_at(0, "begins with a byte order mark: save it without")
        try:
            self._check_events(text)
            root: yaml.Node | None = yaml.compose(text, Loader=yaml.SafeLoader)
            if root is not None:
                self._check_node(root, {}, set())
        except yaml.reader.ReaderError as exc:
            line = text.count("\n", 0, exc.position)
            raise self.fail_at(line, "holds a character that YAML does not allow") from exc
        except yaml.MarkedYAMLError as exc:
            mark = exc.problem_mark or exc.context_mark
            raise self.fail_at(mark.line if mark else 0, clip(exc.problem or "is not YAML", 200)) from exc
        return root

    def _check_events(self, text: str) -> None:
        depth = aliases = 0
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            line = event.start_mark.line if event.start_mark else 0
            if isinstance(event, yaml.AliasEvent):
                aliases += 1
                if aliases > MAX_ALIASES:
                    raise self.fail_at(line, f"has more than {MAX_ALIASES} aliases (*): write the values out")
            tag = getattr(event, "tag", None)
            if tag is not None:
                raise self.fail_at(line, f"the tag {clip(repr(tag), 80)} is not accepted")
            if isinstance(event, yaml.DocumentStartEvent) and (event.tags or event.version):
                raise self.fail_at(line, "directives (%) are not accepted")
            if isinstance(event, yaml.CollectionStartEvent):
                depth += 1
                if depth > MAX_DEPTH:
                    raise self.fail_at(line, f"is nested deeper than {MAX_DEPTH} levels")
            elif isinstance(event, yaml.CollectionEndEvent):
                depth -= 1

    def _check_node(self, node: yaml.Node, seen: dict[int, tuple[int, int]], above: set[int]) -> tuple[int, int]:
        """Return how many values ``node`` expands to and how deep they lie; ``above`` are the nodes that hold it."""
        key = id(node)
        if key in above:
            raise self.fail(node, "holds itself by an alias (*)")
        if key in seen:
            return seen[key]
        size, depth = 1, 0
        if isinstance(node, yaml.CollectionNode):
            if isinstance(node, yaml.MappingNode):
                self._check_keys(node)
            above.add(key)
            for item in node.value:
                for each in item if isinstance(item, tuple) else (item,):
                    its_size, its_depth = self._check_node(each, seen, above)
                    size, depth = size + its_size, max(depth, its_depth)
            above.discard(key)
            depth += 1
        else:
            try:
                yaml.constructor.SafeConstructor().construct_object(node)
            except (ValueError, OverflowError) as exc:  # such as the date 2024-99-99
                raise self.fail(node, f"{clip(repr(node.value), 80)} is no value: {clip(str(exc), 120)}") from exc
        if depth > MAX_DEPTH:
            raise self.fail(node, f"is nested deeper than {MAX_DEPTH} levels")
        if size > MAX_NODES:
            raise self.fail(node, f"its aliases (*) expand to more than {MAX_NODES} values")
        seen[key] = size, depth
        return size, depth

    def _check_keys(self, node: yaml.MappingNode) -> None:
        keys: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise self.fail(key, "a list or a mapping cannot be a key here")
            if key.tag.endswith(":merge"):
                raise self.fail(key, "merge keys (<<) are not accepted: write the values out")
            if key.value in keys:
                raise self.fail(key, f"{clip(repr(key.value), 80)} is given twice")
            keys.add(key.value)
