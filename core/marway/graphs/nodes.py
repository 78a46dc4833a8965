"""The nodes of a graph: what each does, what it is given, and what becomes of one that fails."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

import jmespath
from jmespath.exceptions import JMESPathError
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from marway.errors import MarwayError, clip
from marway.refs import DEFAULT_LABEL, check_label, check_model_name, check_version, is_label
from marway.traffic import check_sticky

__all__ = [
    "Case",
    "Expression",
    "Fallback",
    "LookupNode",
    "ModelNode",
    "Node",
    "NodeName",
    "ParallelNode",
    "SequenceNode",
    "SplitterNode",
    "Strict",
    "SwitchNode",
]


def _as_value_error(check: Callable[[str], str]) -> Callable[[str], str]:
    """Return a check whose refusal pydantic reports with the field's place."""

    def checked(text: str) -> str:
        try:
            return check(text)
        except MarwayError as exc:
            raise ValueError(exc.message) from exc

    return checked


def _checked_selector(text: str) -> str:
    return check_label(text) if is_label(text) else check_version(text)


def _checked_expression(text: str) -> str:
    try:
        jmespath.compile(text)
    except JMESPathError as exc:
        raise ValueError(f"{clip(text, 100)!r} is no JMESPath: {clip(str(exc), 200)}") from exc
    return text


NodeName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,31}$")]
"""A name that JMESPath takes without quotes."""
FieldName = Annotated[str, Field(pattern=r"^[ !#-\[\]-~]{1,100}$")]
"""A name of a form's field that needs no escaping."""
ModelName = Annotated[str, AfterValidator(_as_value_error(check_model_name))]
Selector = Annotated[str, AfterValidator(_as_value_error(_checked_selector))]
Expression = Annotated[str, Field(min_length=1, max_length=4096), AfterValidator(_checked_expression)]


class Strict(BaseModel):
    """Base of what people write: a field that is not known is a mistake, and is refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class Fallback(Strict):
    """What answers in the place of a node that failed: another version, given the node's input, or a constant.

    Attributes:
        model, selector: The version, or None.
        constant: The answer, where ``model`` is None; null is one too.
    """

    model: ModelName | None = None
    selector: Selector = DEFAULT_LABEL
    constant: Any = None

    @model_validator(mode="after")
    def _is_one_of_both(self) -> Fallback:
        if (self.model is None) is not ("constant" in self.model_fields_set):
            raise ValueError("give either a model, with its selector, or a constant")
        if self.model is None and "selector" in self.model_fields_set:
            raise ValueError("a constant has no selector")
        return self


class _Node(Strict):
    """What all nodes have.

    Attributes:
        timeout_s: Most seconds that one try may take; None: as long as the request may.
        retries: How often it is tried again where it failed and another try may help.
        fallback: What answers where it failed; None: nothing.
        required: Whether the graph fails with it; else its answer is null then.
    """

    timeout_s: Annotated[float, Field(gt=0, le=3600)] | None = None
    retries: Annotated[int, Field(ge=0, le=10)] = 0
    fallback: Fallback | None = None
    required: bool = True

    @property
    def children(self) -> tuple[str, ...]:
        """The nodes that it holds, in their order."""
        return ()

    @property
    def expressions(self) -> tuple[str, ...]:
        """Its JMESPath expressions."""
        return ()


class ModelNode(_Node):
    """A model that is asked, which may be a graph as well.

    Attributes:
        model, selector: Which version: a label moves with the label, a version stays.
        pin: Whether publishing writes the version in the place of the label.
        input: JMESPath of what it is given, over `request` (the graph's own input) and `nodes` (the answers of nodes
            that ended, by name). None: what the node before it in its sequence answered, or else what the graph was
            given, byte for byte and with its content type.
        content_type: Of what ``input`` selects: JSON, or text that is sent as it is.
        tensors: The node speaks tensors (Open Inference Protocol): which output of the node before it becomes which
            input, by name; their bytes are passed as they are. None: it is given bytes.
        parts: The node is given a form: by field, the node whose answer it is, byte for byte. A handler finds each by
            the field's name, as bytes.
    """

    kind: Literal["model"]
    model: ModelName
    selector: Selector = DEFAULT_LABEL
    pin: bool = False
    input: Expression | None = None
    content_type: Literal["application/json", "text/plain"] = "application/json"
    tensors: Mapping[str, str] | None = None
    parts: Annotated[Mapping[FieldName, NodeName], Field(min_length=1, max_length=64)] | None = None

    @property
    def expressions(self) -> tuple[str, ...]:
        """Its JMESPath expressions; each answer that is a part of its input is looked at as by one."""
        parts = tuple(f"nodes.{each}" for each in (self.parts or {}).values())
        return parts if self.input is None else (self.input,)

    @model_validator(mode="after")
    def _is_given_one_thing(self) -> ModelNode:
        if sum(given is not None for given in (self.tensors, self.input, self.parts)) > 1:
            raise ValueError("give one of input, tensors and parts")
        if self.input is None and "content_type" in self.model_fields_set:
            raise ValueError("content_type is of what input selects, and there is no input")
        return self


class SequenceNode(_Node):
    """Nodes one after another: each is given what the one before answered, and the last one's answer is its own."""

    kind: Literal["sequence"]
    nodes: Annotated[tuple[NodeName, ...], Field(min_length=1)]

    @property
    def children(self) -> tuple[str, ...]:
        """The nodes that it holds, in their order."""
        return self.nodes


class ParallelNode(_Node):
    """Nodes side by side, given the same; its answer is an object of theirs by name.

    Attributes:
        nodes: Which.
        wait: For how many: all, any (the first that answers), or a number; those that are not waited for are cancelled.
    """

    kind: Literal["parallel"]
    nodes: Annotated[tuple[NodeName, ...], Field(min_length=1)]
    wait: Literal["all", "any"] | Annotated[int, Field(ge=1)] = "all"

    @property
    def children(self) -> tuple[str, ...]:
        """The nodes that it holds, in their order."""
        return self.nodes

    @model_validator(mode="after")
    def _has_so_many(self) -> ParallelNode:
        if isinstance(self.wait, int) and self.wait > len(self.nodes):
            raise ValueError(f"waits for {self.wait} of {len(self.nodes)} nodes")
        return self


class Case(Strict):
    """A condition (JMESPath, true as JMESPath has it) and the node that runs where it holds."""

    when: Expression
    node: NodeName


class SwitchNode(_Node):
    """The first node whose condition holds.

    Attributes:
        cases: In their order.
        default: The node that runs where none holds; None: the switch fails then.
    """

    kind: Literal["switch"]
    cases: Annotated[tuple[Case, ...], Field(min_length=1)]
    default: NodeName | None = None

    @property
    def children(self) -> tuple[str, ...]:
        """The nodes that it holds, in their order."""
        return (*(case.node for case in self.cases), *(() if self.default is None else (self.default,)))

    @property
    def expressions(self) -> tuple[str, ...]:
        """Its JMESPath expressions."""
        return tuple(case.when for case in self.cases)


class SplitterNode(_Node):
    """One of several nodes, by a hash of what the caller keeps its side by: the same on every gateway.

    Attributes:
        weights: How often each is taken, in proportion to their sum.
        sticky: request, group or header:NAME, as with rollouts.
    """

    kind: Literal["splitter"]
    weights: Annotated[Mapping[NodeName, Annotated[float, Field(gt=0)]], Field(min_length=1)]
    sticky: Annotated[str, AfterValidator(check_sticky)] = "request"

    @property
    def children(self) -> tuple[str, ...]:
        """The nodes that it holds, in their order."""
        return tuple(self.weights)


class LookupNode(_Node):
    """Rows of a published table, by key, joined to what the node is given.

    Its answer is its input, a JSON object, with the row (an object), or the rows (a list of them, where the key is a
    list), as the field ``into``.

    Attributes:
        table, selector: Which version of which table.
        pin: Whether publishing writes the version in the place of the label.
        key: JMESPath of the key, or of a list of keys, over `request` and `nodes`.
        columns: Which columns; None: all but the key.
        into: Field of the input that holds what was found.
        missing: What a key that is not in the table is: an error, or null in the place of its row.
    """

    kind: Literal["lookup"]
    table: ModelName
    selector: Selector = DEFAULT_LABEL
    pin: bool = False
    key: Expression
    columns: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    into: Annotated[str, Field(min_length=1, max_length=100)]
    missing: Literal["error", "null"] = "error"

    @property
    def expressions(self) -> tuple[str, ...]:
        """Its JMESPath expressions."""
        return (self.key,)


Node = Annotated[
    ModelNode | SequenceNode | ParallelNode | SwitchNode | SplitterNode | LookupNode, Field(discriminator="kind")
]
