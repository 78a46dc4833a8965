"""YAML that every parser reads alike and that stays small, as trees that know their lines (`model_config` says why)."""

from __future__ import annotations

from collections.abc import Iterator

import yaml

from marway.errors import clip

__all__ = ["MAX_CONFIG_BYTES", "Wrong", "composed", "composed_all"]

MAX_CONFIG_BYTES = 64 * 1024
_MAX_ALIASES = 50
"""Most aliases (`*name`); SnakeYAML takes no more that stand for lists or mappings."""
_MAX_NODES = 50_000
"""Most values that the document may expand to; without an alias a file of 64 KiB has fewer."""
_MAX_DEPTH = 32
"""Deepest nesting of lists and mappings."""


class Wrong(Exception):
    """What is wrong, and the line of it, counted from 0."""

    def __init__(self, where: yaml.Node | int, message: str) -> None:
        super().__init__(message)
        self.line = where if isinstance(where, int) else where.start_mark.line


def composed(data: bytes) -> yaml.Node | None:
    """Return the root of the document ``data``, none of whose parts is tagged, named twice or holds itself."""
    return next(_composed(data, MAX_CONFIG_BYTES, several=False), None)


def composed_all(data: bytes, max_bytes: int) -> list[yaml.Node]:
    """Return the roots of the documents in ``data`` that are not empty, each as `composed` has it."""
    return list(_composed(data, max_bytes, several=True))


def _composed(data: bytes, max_bytes: int, *, several: bool) -> Iterator[yaml.Node]:
    if len(data) > max_bytes:
        raise Wrong(0, f"has {len(data)} bytes: at most {max_bytes} are accepted")
    try:
        text = data.decode()
    except UnicodeDecodeError as exc:
        raise Wrong(data.count(b"\n", 0, exc.start), "is not UTF-8") from exc
    if text.startswith("\ufeff"):
        raise Wrong(0, "begins with a byte order mark: save it without")
    try:
        _check_events(text)
        roots = yaml.compose_all if several else _compose_one
        for root in roots(text, Loader=yaml.SafeLoader):
            _check_node(root, {}, set())
            yield root
    except yaml.reader.ReaderError as exc:
        line = text.count("\n", 0, exc.position)
        raise Wrong(line, "holds a character that YAML does not allow") from exc
    except yaml.MarkedYAMLError as exc:
        mark = exc.problem_mark or exc.context_mark
        raise Wrong(mark.line if mark else 0, clip(exc.problem or "is not YAML", 200)) from exc


def _compose_one(text: str, Loader: type[yaml.SafeLoader]) -> Iterator[yaml.Node]:  # noqa: N803 - as `yaml.compose_all`
    root: yaml.Node | None = yaml.compose(text, Loader=Loader)
    if root is not None:
        yield root


def _check_events(text: str) -> None:
    """Refuse what composing would take in, or be overcome by: tags, directives, many aliases and deep nesting."""
    depth = aliases = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        line = event.start_mark.line if event.start_mark else 0
        aliases += isinstance(event, yaml.AliasEvent)
        if aliases > _MAX_ALIASES:
            raise Wrong(line, f"has more than {_MAX_ALIASES} aliases (*): write the values out")
        tag = getattr(event, "tag", None)
        if tag is not None:
            raise Wrong(line, f"the tag {clip(repr(tag), 80)} is not accepted")
        if isinstance(event, yaml.DocumentStartEvent) and (event.tags or event.version):
            raise Wrong(line, "directives (%) are not accepted")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > _MAX_DEPTH:
            raise Wrong(line, f"is nested deeper than {_MAX_DEPTH} levels")


def _check_node(node: yaml.Node, seen: dict[int, tuple[int, int]], above: set[int]) -> tuple[int, int]:
    """Return how many values ``node`` expands to and how deep they lie; ``above`` are the nodes that hold it."""
    key = id(node)
    if key in above:
        raise Wrong(node, "holds itself by an alias (*)")
    if key in seen:
        return seen[key]
    size, depth = 1, 0
    if isinstance(node, yaml.CollectionNode):
        if isinstance(node, yaml.MappingNode):
            _check_keys(node)
        above.add(key)
        for item in node.value:
            for each in item if isinstance(item, tuple) else (item,):
                its_size, its_depth = _check_node(each, seen, above)
                size, depth = size + its_size, max(depth, its_depth)
        above.discard(key)
        depth += 1
    else:
        try:
            yaml.constructor.SafeConstructor().construct_object(node)
        except (ValueError, OverflowError) as exc:  # such as the date 2024-99-99
            raise Wrong(node, f"{clip(repr(node.value), 80)} is no value: {clip(str(exc), 120)}") from exc
    if depth > _MAX_DEPTH:
        raise Wrong(node, f"is nested deeper than {_MAX_DEPTH} levels")
    if size > _MAX_NODES:
        raise Wrong(node, f"its aliases (*) expand to more than {_MAX_NODES} values")
    seen[key] = size, depth
    return size, depth


def _check_keys(node: yaml.MappingNode) -> None:
    keys: set[str] = set()
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode):
            raise Wrong(key, "a list or a mapping cannot be a key here")
        if key.tag.endswith(":merge"):
            raise Wrong(key, "merge keys (<<) are not accepted: write the values out")
        if key.value in keys:
            raise Wrong(key, f"{clip(repr(key.value), 80)} is given twice")
        keys.add(key.value)
