"""Triton's example model `simple`, as a handler: two lists of integers in, their sums and their differences out."""


def handle(data, context):
    if data is None:
        return None  # TorchServe initialises function handlers so
    return [answer(row) for row in data]


def answer(row):
    pairs = list(zip(numbers(row["INPUT0"]), numbers(row["INPUT1"]), strict=True))
    sums, differences = [a + b for a, b in pairs], [a - b for a, b in pairs]
    if isinstance(row["INPUT0"][0], str):  # `simple_string` has them as texts
        sums, differences = [str(each) for each in sums], [str(each) for each in differences]
    return {"OUTPUT0": sums, "OUTPUT1": differences}


def numbers(values):
    return [int(value) for value in values]
