import base64
import io
import json
from typing import Any

import pytest
from PIL import Image

from support.trained import EXAMPLES, Served

SAMPLES = EXAMPLES / "digits" / "samples"
NAMES = ["0", "4", "7"]
SEVEN = json.loads((SAMPLES / "7.json").read_text(encoding="utf-8"))
PNG = (SAMPLES / "7.png").read_bytes()


def pixels(name: str) -> list[list[int]]:
    nested: list[list[int]] = json.loads((SAMPLES / f"{name}.json").read_text(encoding="utf-8"))
    return nested


def encoded(image: Image.Image, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, quality=95)
    return buffer.getvalue()


def rows(*values: Any) -> list[dict[str, Any]]:
    return [{"data": value} for value in values]


def assert_same(left: dict[str, Any], right: dict[str, Any]) -> None:
    assert left["label"] == right["label"]
    assert left["scores"] == pytest.approx(right["scores"], abs=2e-4)


@pytest.mark.parametrize("name", NAMES)
def test_a_sample_is_recognised_as_numbers_and_as_a_picture(digits: Served, name: str) -> None:
    """Each shipped sample gets its own digit, with its score and the best three, from its numbers and its picture."""
    answers = digits.ask({"body": pixels(name)}, {"data": (SAMPLES / f"{name}.png").read_bytes()})
    assert answers.statuses == [200, 200]
    assert answers.content_types == ["application/json", "application/json"]
    for body in answers.bodies:
        assert body["label"] == name
        assert body["score"] == max(body["scores"].values()) == body["scores"][name] > 0.5
        assert len(body["scores"]) == 3


FLAT = [pixel for row in SEVEN for pixel in row]


@pytest.mark.parametrize(
    "value",
    [
        SEVEN,
        FLAT,
        [FLAT],
        [SEVEN],
        [[float(pixel) for pixel in row] for row in SEVEN],
        {"image": SEVEN},
        {"data": FLAT},
        {"instances": [SEVEN]},
        {"instances": [{"image": SEVEN}]},
        {"inputs": [{"name": "image", "datatype": "FP32", "shape": [1, 8, 8], "data": FLAT}]},
        json.dumps(SEVEN),
        json.dumps({"image": FLAT}).encode(),
        bytearray(json.dumps([SEVEN]).encode()),
    ],
)
def test_pixels_are_found_in_every_accepted_form(digits: Served, value: Any) -> None:
    """Nested and flat lists, bare or under a key, as objects or as JSON, all get the same answer."""
    assert digits.ask({"data": value}).bodies == digits.ask({"data": SEVEN}).bodies


@pytest.mark.parametrize(
    "value",
    [
        PNG,
        bytearray(PNG),
        base64.b64encode(PNG).decode(),
        {"image": {"b64": base64.b64encode(PNG).decode()}},
        {"data": "data:image/png;base64," + base64.b64encode(PNG).decode()},
        encoded(Image.open(SAMPLES / "7.png").convert("RGB"), "JPEG"),
        encoded(Image.open(SAMPLES / "7.png").convert("P")),
        encoded(Image.open(SAMPLES / "7.png").resize((8, 8), Image.Resampling.BOX)),
    ],
    ids=["png", "bytearray", "base64", "b64", "data-url", "jpeg", "palette", "small"],
)
def test_a_picture_is_read_in_every_accepted_form(digits: Served, value: Any) -> None:
    """PNG and JPEG bytes and their base64, in grey, colour and any size, get the digit that they show."""
    answers = digits.ask({"data": value})
    assert (answers.statuses, answers.bodies[0]["label"]) == ([200], "7")


def test_a_picture_has_the_pixels_that_it_was_made_of(digits: Served) -> None:
    """Reducing a sample's picture gives back the sample's numbers, to within rounding."""
    assert digits.handler.parse(PNG) == pytest.approx(digits.handler.parse(SEVEN), abs=0.05)


def test_transparent_pixels_are_dark_ground(digits: Served) -> None:
    """Ink on a transparent ground is read as ink on a dark one."""
    ink = Image.open(SAMPLES / "7.png").convert("L")
    image = Image.new("RGBA", ink.size, "white")
    image.putalpha(ink)
    assert digits.ask({"data": encoded(image)}).bodies[0]["label"] == "7"


def test_a_batch_answers_as_single_calls_do_in_one_forward_pass(digits: Served) -> None:
    """N rows give N answers equal to those of N calls, and the model runs once."""
    values = [pixels(name) for name in NAMES] * 3 + [PNG]
    singles = [digits.ask(row).bodies[0] for row in rows(*values)]
    passes: list[int] = []
    hook = digits.handler.model.register_forward_hook(lambda *_: passes.append(1))
    try:
        batch = digits.ask(*rows(*values))
    finally:
        hook.remove()
    assert len(passes) == 1
    assert len(batch.bodies) == len(values)
    for single, together in zip(singles, batch.bodies, strict=True):
        assert_same(single, together)


BAD = [
    (b"", "empty"),
    (b"seven", "neither JSON nor"),
    (b"\xfe\xff\x00", "neither JSON nor"),
    (PNG.replace(b"\r", b"").replace(b"\n", b"").replace(b"\0", b""), "send it with `--data-binary @FILE`"),
    (PNG[:100], "cannot be decoded"),
    (b"\xff\xd8\xff\xe0", "cannot be decoded"),
    (b"[" * 200_000, "neither JSON nor"),
    (SEVEN[:7], "shape 7x8"),
    (FLAT[:63], "shape 63"),
    ([SEVEN, SEVEN], "shape 2x8x8"),
    ([*SEVEN[:7], [1, 2]], "not all of one length"),
    ([], "shape 0"),
    (7, "of one number"),
    (True, "not a number"),
    (None, "not a number"),
    ({"image": [["a"] * 8] * 8}, "not a number"),
    ({"picture": SEVEN}, "none of the keys"),
    ([17, *FLAT[1:]], "out of range"),
    ([-1, *FLAT[1:]], "out of range"),
    (json.dumps([float("nan"), *FLAT[1:]]), "out of range"),
    ([1e300, *FLAT[1:]], "out of range"),
    ([10**30, *FLAT[1:]], "not a number"),
    (encoded(Image.new("1", (4097, 4096))), "more than 16777216 pixels"),
]


@pytest.mark.parametrize(("value", "reason"), BAD)
def test_a_bad_row_alone_says_what_is_wrong_and_what_is_accepted(digits: Served, value: Any, reason: str) -> None:
    """A row without an image gets status 400 and a message with the reason and the accepted forms."""
    answers = digits.ask({"image": value} if value is None else {"data": value})
    assert answers.statuses == [400]
    assert answers.content_types == ["application/json"]
    assert reason in answers.bodies[0]["error"]
    assert "8x8 pixels from 0 to 16" in answers.bodies[0]["error"]


def test_bad_rows_do_not_touch_their_neighbours(digits: Served) -> None:
    """In a mixed batch every bad row fails by itself, and every good one is answered as if it were alone."""
    values = [value for value, _ in BAD if value is not None]
    mixed = [item for pair in zip(values, [SEVEN] * len(values), strict=True) for item in pair]
    answers = digits.ask(*rows(*mixed))
    assert answers.statuses == [400, 200] * len(values)
    (alone,) = digits.ask({"data": SEVEN}).bodies
    for bad, good in zip(answers.bodies[::2], answers.bodies[1::2], strict=True):
        assert list(bad) == ["error"]
        assert_same(good, alone)


def test_requests_without_a_known_field_are_refused(digits: Served) -> None:
    """No field at all, or several of which none is known, gets status 400; one unknown field is taken."""
    assert digits.ask({}, {"one": b"1", "two": b"2"}, {"scan": PNG}).statuses == [400, 400, 200]


def test_no_rows_give_no_answers(digits: Served) -> None:
    """An empty batch is answered with an empty list."""
    assert digits.ask().bodies == []
