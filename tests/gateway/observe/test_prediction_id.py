import time

from ulid import ULID

from marway_gateway.observe.prediction_id import new_prediction_id


def test_an_id_is_a_ulid_of_its_moment() -> None:
    """Ids are ULIDs, all different, and say to the millisecond when they were made."""
    before = int(time.time() * 1000)
    ids = [new_prediction_id() for _ in range(2000)]
    after = int(time.time() * 1000)
    assert len(set(ids)) == len(ids)
    for made in (ids[0], ids[-1]):
        assert str(ULID.from_str(made)) == made
        assert before <= ULID.from_str(made).milliseconds <= after
