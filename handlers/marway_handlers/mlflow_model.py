"""MLflow models: one row in, its prediction out, through `mlflow.pyfunc`."""

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING or __package__:
    from marway_handlers.marway_handler_base import Failure, ModelHandler, decoded, member
else:  # in an archive, beside this file
    from marway_handler_base import Failure, ModelHandler, decoded, member


class MlflowHandler(ModelHandler):
    """Asks a model that MLflow saved with the flavor `python_function`; N rows in one call.

    The archive carries MLflow's directory, whose `MLmodel` lies at its root. Loading it runs what it says: it must come
    from people you trust.

    A row holds, by the model's signature, an object of its columns by name or a list of them in their order, or a
    tensor as JSON lists, or, for a model without a signature, a list of numbers; bare or under one of ``keys``. It is
    answered with ``{"prediction": …}``: a value, a list, or an object of the output's columns. A row that is no input
    gets status 400 and ``{"error": "…"}`` as its own answer, one whose answer is not finite status 500.
    """

    keys = ("data", "inputs", "instances", "dataframe_records")

    def load(self, manifest: dict[str, str]) -> Any:
        """Return the model as MLflow's `pyfunc` has it."""
        import mlflow.pyfunc

        return mlflow.pyfunc.load_model(str(self.directory))

    def prepare(self) -> None:
        """Read the signature."""
        schema = self.model.metadata.get_input_schema()
        self.tensor = schema is not None and schema.is_tensor_spec()
        if self.tensor and (len(schema.inputs) > 1 or schema.inputs[0].name):
            raise RuntimeError("a model of several or of named tensors needs a handler of its own")
        columns = schema is not None and not self.tensor and schema.has_input_names()
        self.columns = [str(name) for name in schema.input_names()] if columns else []
        self.types = [str(kind).rpartition(".")[2] for kind in schema.input_types()] if columns else []
        self.dtype = schema.inputs[0].type if self.tensor else None
        self.shape = tuple(schema.inputs[0].shape[1:]) if self.tensor else ()

    def parse(self, value: Any) -> Any:
        """Return a row's columns in their order, or its tensor; a ValueError says what is wrong with it."""
        value = decoded(value, "the body is not UTF-8 text")
        if isinstance(value, str):
            try:
                value = json.loads(value)
            except (ValueError, RecursionError):
                if len(self.columns) != 1:
                    raise ValueError("the body is not JSON") from None
                value = [value]
        if isinstance(value, dict) and not (self.columns and all(name in value for name in self.columns)):
            value = member(value, self.keys)
            while isinstance(value, list) and len(value) == 1 and isinstance(value[0], list | dict):
                value = value[0]
        if isinstance(value, dict):
            missing = [name for name in self.columns if name not in value]
            if missing or not self.columns:
                raise ValueError(
                    f"the JSON object has no {missing[0]!r}" if missing else "an object has no columns here"
                )
            return [value[name] for name in self.columns]
        if not isinstance(value, list):
            raise ValueError("the row is neither a list nor an object")
        if self.tensor:
            return self._array(value)
        if self.columns and len(value) != len(self.columns):
            raise ValueError(f"the row has {len(value)} items")
        return value

    def accepted(self) -> str:
        """Return what a row may hold."""
        if self.tensor:
            return f"send a tensor of {self.dtype} of shape {list(self.shape)} as lists"
        if self.columns:
            named = ", ".join(f"{name} ({kind})" for name, kind in zip(self.columns, self.types, strict=True))
            return f"send an object with {named}, or a list of them in this order"
        return "send a list of numbers"

    def answers(self, inputs: list[Any]) -> Iterator[Any]:
        """Return the answer to each row."""
        import pandas

        if self.tensor:
            given: Any = np.stack(inputs)
        elif self.columns:
            given = pandas.DataFrame(inputs, columns=self.columns)
            for name, kind in zip(self.columns, self.types, strict=True):
                # JSON has one kind of number: 1 may stand for 1.0, which MLflow would not take for a double.
                if kind in ("double", "float"):
                    given[name] = given[name].astype("float64" if kind == "double" else "float32")
                elif kind == "integer":
                    given[name] = given[name].astype("int32")
        else:
            given = pandas.DataFrame(inputs)
        output = self.model.predict(given)
        if isinstance(output, pandas.DataFrame):
            rows: list[Any] = output.to_dict("records")
        elif isinstance(output, dict):
            rows = [dict(zip(output, values, strict=True)) for values in zip(*output.values(), strict=True)]
        else:
            rows = list(output)
        if len(rows) != len(inputs):
            raise RuntimeError(f"for {len(inputs)} rows the model gives {len(rows)} answers, not one a row")
        return map(_answer, rows)

    def _array(self, value: list[Any]) -> Any:
        try:
            array = np.asarray(value, dtype=self.dtype)
        except (TypeError, ValueError):
            raise ValueError("the lists are no tensor of the model's type") from None
        if array.ndim == len(self.shape) + 1 and array.shape[0] == 1:
            array = array[0]
        fits = array.ndim == len(self.shape)
        if not fits or any(wanted not in (-1, side) for wanted, side in zip(self.shape, array.shape, strict=True)):
            raise ValueError(f"the tensor has the shape {list(array.shape)}")
        return array


def _answer(row: Any) -> Any:
    value = {str(name): _plain(each) for name, each in row.items()} if isinstance(row, dict) else _plain(row)
    for each in value.values() if isinstance(value, dict) else [value]:
        array = np.asarray(each)
        if array.dtype.kind == "f" and not bool(np.isfinite(array).all()):
            return Failure("the model's answer is not finite")
    return {"prediction": value}


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.generic | np.ndarray) else value
