"""Saved tensors are read without torch, as torch would read them, and nothing else is."""

from __future__ import annotations

import io
import pickle
import zipfile
from typing import Any

import pytest
import torch

from marway.answers.tensors import decode_tensor

DTYPES = [torch.bfloat16, torch.bool, torch.uint8, torch.int8, torch.float64, torch.float32, torch.float16]
DTYPES += [torch.int32, torch.int64, torch.int16]


def saved(value: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_plain_type(dtype: torch.dtype) -> None:
    """Numbers of every plain type, in any layout, are what torch says they are."""
    base = torch.arange(24).reshape(2, 3, 4).to(dtype)
    for tensor in (base, base[:, 1:, ::2], base.transpose(0, 2), base[1, 2, 3], base[0, 0, :0], base[:0]):
        values = tensor.float().tolist() if dtype == torch.bfloat16 else tensor.tolist()
        expected = {"dtype": str(dtype).removeprefix("torch."), "shape": list(tensor.shape), "values": values}
        assert decode_tensor(saved(tensor)) == expected
    assert decode_tensor(saved(torch.nn.Parameter(torch.tensor([0.5]))))["values"] == [0.5]


class Evil:
    def __reduce__(self) -> Any:
        return print, ("this ran",)


@pytest.mark.parametrize(
    "value",
    [
        Evil(),
        [torch.zeros(1)],
        torch.zeros(2, dtype=torch.complex64),
        torch.zeros(2, 2).to_sparse(),
        torch.zeros(1).expand(10**9),
        torch.zeros(1, 1).expand(10**9, 0),
        "text",
    ],
    ids=["code", "list", "complex", "sparse", "repeated", "wide and empty", "text"],
)
def test_what_is_no_plain_tensor_is_refused(value: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """Other kinds, and tensors that are larger than their memory, are refused, and no code of theirs runs."""
    with pytest.raises(ValueError, match=r"."):
        decode_tensor(saved(value))
    assert capsys.readouterr().out == ""


def test_broken_bytes_are_refused() -> None:
    """Bytes that are no archive, cut or changed ones and a compressed one give an error that says so."""
    good = saved(torch.arange(6.0))
    for data in (b"", b"PK", good[:-40], pickle.dumps(1)):
        with pytest.raises(ValueError, match="not a saved tensor"):
            decode_tensor(data)
    packed = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(good)) as source, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as target:
        for name in source.namelist():
            target.writestr(name, source.read(name))
    with pytest.raises(ValueError, match="compressed"):
        decode_tensor(packed.getvalue())
    for at in range(0, len(good), 7):
        changed = bytearray(good)
        changed[at] ^= 0xFF
        try:
            decode_tensor(bytes(changed))
        except ValueError:
            continue
