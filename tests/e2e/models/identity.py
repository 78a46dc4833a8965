"""Triton's example model `simple_identity`, as a handler: each row is given back."""


def handle(data, context):
    if data is None:
        return None  # TorchServe initialises function handlers so
    return [row["data"] for row in data]
