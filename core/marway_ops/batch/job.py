"""What one job is: written once beside its output, so that whoever goes on with it does the same."""

from __future__ import annotations

from typing import Final, Literal

from pydantic import BaseModel, ConfigDict

from marway.errors import Conflict

__all__ = ["FORMATS", "OUTPUT_FORMATS", "OWN_COLUMNS", "Commit", "Format", "Input", "Job", "OutputFormat", "Part"]

Format = Literal["jsonl", "csv", "parquet", "files"]
OutputFormat = Literal["jsonl", "csv", "parquet"]
FORMATS: Final[tuple[Format, ...]] = ("jsonl", "csv", "parquet", "files")
OUTPUT_FORMATS: Final[tuple[OutputFormat, ...]] = ("jsonl", "csv", "parquet")
OWN_COLUMNS: Final = ("file", "row", "prediction_id", "prediction")
"""What every row of an output has, in this order; columns that are kept stand behind them."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True)


class Input(_Frozen):
    """One object that is read.

    Attributes:
        name: Its path or URL.
        size: Bytes.
        tag: Changes when its bytes do.
    """

    name: str
    size: int
    tag: str


class Job(_Frozen):
    """What is asked, of which version, and how it is cut into parts.

    Attributes:
        format: Of this document.
        reference: What the caller named.
        model, version, model_id: What that meant when the job began: the job asks this version to its end.
        inputs: In the order in which they are read.
        input_format, output_format: How rows are read and written.
        column: The field or column that is sent alone; None sends whole rows.
        keep: Fields or columns that go with the answers.
        content_type: What rows are sent as; None tells by the row.
        limit: Rows that are read; None means all.
        part_rows, part_bytes: Where a part ends: at so many rows, or so many bytes of them.
    """

    format: Literal[1] = 1
    reference: str
    model: str
    version: str
    model_id: str
    inputs: tuple[Input, ...]
    input_format: Format
    output_format: OutputFormat
    column: str | None = None
    keep: tuple[str, ...] = ()
    content_type: str | None = None
    limit: int | None = None
    part_rows: int
    part_bytes: int

    def check_same(self, begun: Job, where: str) -> None:
        """Compare with the job whose output is there already; which version a label means now does not matter.

        Raises:
            Conflict: It is another job.
        """
        for name in Job.model_fields:
            mine, other = getattr(self, name), getattr(begun, name)
            if name in ("version", "model_id") or mine == other:
                continue
            if name == "inputs":
                what = _changed(self.inputs, begun.inputs)
            else:
                what = f"its {name.replace('_', ' ')} is {other!r}, not {mine!r}"
            raise Conflict(f"{where} has the output of another job: {what}; give another --output, or delete that one")


def _changed(mine: tuple[Input, ...], other: tuple[Input, ...]) -> str:
    now, then = {each.name: each for each in mine}, {each.name: each for each in other}
    for name in now.keys() & then.keys():
        if now[name] != then[name]:
            return f"the input {name} has changed since"
    name = next(iter((now.keys() ^ then.keys()) or {"in another order"}))
    return f"its inputs are others ({name})"


class Part(_Frozen):
    """Rows of one input that are answered and written together.

    Attributes:
        index: Counts the parts of the job.
        input: Which input, from 0.
        first_row, last_row: From 1; rows without content count and are not asked.
    """

    index: int
    input: int
    first_row: int
    last_row: int

    @property
    def name(self) -> str:
        """What its objects' names begin with: the range of input that they are of."""
        return f"part-{self.index:08}-of-input-{self.input:05}-rows-{self.first_row:010}-{self.last_row:010}"


class Commit(_Frozen):
    """What became of a part: the object that, once there, decides which of several attempts counts.

    Attributes:
        part: Which.
        rows: Answered, as the object `answers` has them.
        failed: Not answered, as the object `failures` has them with the reasons.
        answers, failures: Keys of these objects; None where one would be empty.
    """

    part: Part
    rows: int
    failed: int
    answers: str | None
    failures: str | None
