"""What a Python file defines, found without running it.

TorchServe imports a handler by its basename and takes its entry point: a function (`handle`, or the one
given after `:`), else the file's only class. It counts as a class of the file whatever `inspect` finds
with that module's name (`ts.utils.util.list_classes_from_module`), so a second name for a class and a
`namedtuple` count as well. What it finds in doubt, it takes silently; we refuse.
"""

from __future__ import annotations

import ast
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from marway.errors import InvalidArchive, clip

__all__ = ["MAX_SOURCE_BYTES", "ModuleFacts", "check_entry_point", "check_one_class", "parse_module"]

MAX_SOURCE_BYTES = 1024 * 1024
_CLASS_MAKERS = frozenset({"Enum", "Flag", "IntEnum", "IntFlag", "NamedTuple", "StrEnum", "TypedDict", "namedtuple"})
_IMPORT_GUARDS = frozenset({"BaseException", "Exception", "ImportError"})

Function = ast.FunctionDef | ast.AsyncFunctionDef


class Bound(NamedTuple):
    """What a name stands for: the line that bound it, and its class (or call that makes one) or function, if any."""

    line: int
    node: ast.AST | None = None


@dataclass(slots=True)
class ModuleFacts:
    """What a module binds at its top level.

    Attributes:
        label: Its name, for messages.
        bound: Everything bound, imports included, in order of definition.
        imports: Top-level packages imported, with the line; only what always runs and is not guarded.
        relative: Lines of relative imports that fail when the module is imported by its basename.
        relative_later: Lines of those inside functions, which fail when these are called.
        star: Whether it imports names that cannot be known (`from x import *`).
    """

    label: str
    bound: dict[str, Bound] = field(default_factory=dict)
    imports: dict[str, int] = field(default_factory=dict)
    relative: list[int] = field(default_factory=list)
    relative_later: list[int] = field(default_factory=list)
    star: bool = False

    @property
    def classes(self) -> dict[str, Bound]:
        """What TorchServe would count as classes of this module."""
        return {name: each for name, each in self.bound.items() if isinstance(each.node, ast.ClassDef | ast.Call)}

    def listed(self) -> str:
        """Return the classes as one text."""
        names = [f"{name} (line {each.line})" for name, each in self.classes.items()]
        more = f" and {len(names) - 4} more" if len(names) > 4 else ""
        return f"{len(names)} classes, {', '.join(names[:4])}{more}" if names else "no class"


def parse_module(data: bytes, label: str) -> ModuleFacts:
    """Parse Python source; an `InvalidArchive` says in which line it does not parse."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an odd escape is its author's matter
            tree = ast.parse(data, label)
    except SyntaxError as exc:
        raise InvalidArchive(f"{label}:{exc.lineno or 1}: does not parse: {clip(str(exc.msg), 120)}") from exc
    except (ValueError, RecursionError, MemoryError) as exc:
        raise InvalidArchive(f"{label}: does not parse: {clip(str(exc), 120) or 'nested too deep'}") from exc
    facts = ModuleFacts(label)
    _statements(facts, tree.body, guarded=False)
    for node in ast.walk(tree):
        if isinstance(node, Function):
            lines = (each.lineno for each in ast.walk(node) if isinstance(each, ast.ImportFrom) and each.level)
            facts.relative_later += [line for line in lines if line not in facts.relative]
    return facts


def _statements(facts: ModuleFacts, body: Iterable[ast.stmt], *, guarded: bool) -> None:
    for node in body:
        if isinstance(node, Function | ast.ClassDef):
            _bind(facts, node.name, node.lineno, node)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            _import(facts, node, guarded=guarded)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            if node.value is not None:
                _assign(facts, node.targets if isinstance(node, ast.Assign) else [node.target], node.value)
        elif isinstance(node, ast.Delete):
            for target in node.targets:
                if isinstance(target, ast.Name):
                    facts.bound.pop(target.id, None)
        elif isinstance(node, ast.If):
            if not _never_at_import(node.test):
                _statements(facts, node.body, guarded=guarded)
            _statements(facts, node.orelse, guarded=guarded)
        else:
            _compound(facts, node, guarded=guarded)


def _compound(facts: ModuleFacts, node: ast.stmt, *, guarded: bool) -> None:
    """Follow every block of a `try`, `with`, `for`, `while` or `match`."""
    inside = guarded or (isinstance(node, ast.Try) and any(map(_catches_import_errors, node.handlers)))
    targets = [node.target] if isinstance(node, ast.For) else []
    if isinstance(node, ast.With):
        targets = [item.optional_vars for item in node.items if item.optional_vars is not None]
    for target in targets:
        for each in ast.walk(target):
            if isinstance(each, ast.Name):
                _bind(facts, each.id, each.lineno)
    for name in ("body", "orelse", "finalbody"):
        _statements(facts, getattr(node, name, []), guarded=inside if name == "body" else guarded)
    for part in (*getattr(node, "handlers", ()), *getattr(node, "cases", ())):
        _statements(facts, part.body, guarded=guarded)


def _bind(facts: ModuleFacts, name: str, line: int, node: ast.AST | None = None) -> None:
    """Note that ``name`` is bound anew: what it stood for before, and its place, is forgotten."""
    facts.bound.pop(name, None)
    facts.bound[name] = Bound(line, node)


def _assign(facts: ModuleFacts, targets: Iterable[ast.expr], value: ast.expr) -> None:
    node: ast.AST | None = None
    if isinstance(value, ast.Name) and value.id in facts.bound:
        node = facts.bound[value.id].node
    elif isinstance(value, ast.Call) and _last_name(value.func) in _CLASS_MAKERS:
        node = value
    for target in targets:
        for each in ast.walk(target):
            if isinstance(each, ast.Name) and isinstance(each.ctx, ast.Store):
                _bind(facts, each.id, value.lineno, node if each is target else None)


def _import(facts: ModuleFacts, node: ast.Import | ast.ImportFrom, *, guarded: bool) -> None:
    if isinstance(node, ast.ImportFrom) and node.level:
        if not guarded:
            facts.relative.append(node.lineno)
    elif not guarded:
        modules = [node.module or ""] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names]
        for module in modules:
            facts.imports.setdefault(module.partition(".")[0], node.lineno)
    for alias in node.names:
        if alias.name == "*":
            facts.star = True
        else:
            _bind(facts, alias.asname or alias.name.partition(".")[0], node.lineno)


def _last_name(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def _never_at_import(test: ast.expr) -> bool:
    """Whether ``test`` is `TYPE_CHECKING` or `__name__ == "__main__"`."""
    if isinstance(test, ast.Compare):
        return isinstance(test.left, ast.Name) and test.left.id == "__name__" and len(test.ops) == 1
    return _last_name(test) == "TYPE_CHECKING"


def _catches_import_errors(handler: ast.ExceptHandler) -> bool:
    if handler.type is None:
        return True
    kinds = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    return any(_last_name(kind) in _IMPORT_GUARDS for kind in kinds)


def check_entry_point(facts: ModuleFacts, function: str | None) -> None:
    """Refuse a handler in which TorchServe would find no entry point, or another than was meant.

    That is the ``function`` named after `:`, else `handle`, else the only class.
    """
    if facts.relative:
        raise InvalidArchive(
            f"{facts.label}:{facts.relative[0]}: a relative import fails here: TorchServe imports the handler "
            "by its file name, outside any package; import the module by its own name"
        )
    wanted = function or "handle"
    classes = facts.classes
    if wanted in facts.bound:
        _check_function(facts, wanted)
    elif facts.star:
        return
    elif function is not None:
        raise InvalidArchive(f"{facts.label} defines no function {function!r}, which the handler names")
    elif len(classes) != 1:
        raise InvalidArchive(
            f"{facts.label} defines {facts.listed()} and no function 'handle': TorchServe wants exactly one class in "
            "the handler's file, or name the function as FILE:FUNCTION"
        )
    else:
        ((name, only),) = classes.items()
        _check_handler_class(facts.label, name, only.node)


def _check_function(facts: ModuleFacts, name: str) -> None:
    node = facts.bound[name].node
    if not isinstance(node, Function) or node.decorator_list:
        return
    least, most = _arity(node.args)
    if least > 2 or most < 2:
        raise InvalidArchive(
            f"{facts.label}:{node.lineno}: {name} must take two arguments, (data, context): TorchServe "
            "calls it with these"
        )


def _arity(args: ast.arguments) -> tuple[int, float]:
    """Return how many positional arguments a call must have at least and may have at most."""
    positional = len(args.posonlyargs) + len(args.args)
    least = positional - len(args.defaults)
    if any(default is None for default in args.kw_defaults):
        return 1_000_000, 1_000_000  # a keyword-only argument that nobody passes
    return least, float("inf") if args.vararg else positional


def _check_handler_class(label: str, name: str, node: ast.AST | None) -> None:
    if not isinstance(node, ast.ClassDef):
        raise InvalidArchive(f"{label}: its only class, {name}, is no handler: it has no method 'handle'")
    if node.decorator_list or node.keywords:
        return
    methods = {each.name: each for each in node.body if isinstance(each, Function)}
    start = methods.get("__init__")
    if start is not None and not start.decorator_list and _arity(start.args)[0] > 1:
        message = f"{name}.__init__ needs arguments, and TorchServe passes none"
        raise InvalidArchive(f"{label}:{start.lineno}: {message}")
    if all(_last_name(base) == "object" for base in node.bases):
        targets = [target for each in node.body if isinstance(each, ast.Assign) for target in each.targets]
        bound = methods.keys() | {target.id for target in targets if isinstance(target, ast.Name)}
        for method in ("handle", "initialize"):
            if method not in bound:
                message = f"class {name} has no method {method!r}, which TorchServe calls"
                raise InvalidArchive(f"{label}:{node.lineno}: {message}")


def check_one_class(facts: ModuleFacts) -> None:
    """Refuse a model file in which TorchServe would not find exactly one class."""
    if len(facts.classes) != 1:
        raise InvalidArchive(
            f"{facts.label} defines {facts.listed()}: a model file must define exactly one class, the model; other "
            "classes go into files of their own (--extra-files)"
        )
