from collections import Counter
from collections.abc import Sequence

import pytest

from support.trained import EXAMPLES, load_example

TRAIN_PER_INTENT = 66
HELDOUT_PER_INTENT = 15
SHARED_RUN = 4  # words in a row
SIMILARITY = 0.6

Rows = list[tuple[str, list[str]]]


@pytest.fixture(scope="module")
def rows() -> dict[str, Rows]:
    example = load_example("intent")
    words = example.load_model_module().words
    return {
        part: [(label, words(sentence)) for label, sentence in example.read(f"{part}.tsv")]
        for part in ("train", "heldout")
    }


def longest_common_subsequence(left: Sequence[str], right: Sequence[str]) -> int:
    """Count the words that two sentences share in the same order: high for two fillings of one frame."""
    previous = [0] * (len(right) + 1)
    for word in left:
        current = [0]
        for place, other in enumerate(right):
            current.append(previous[place] + 1 if word == other else max(previous[place + 1], current[-1]))
        previous = current
    return previous[-1]


def test_every_intent_has_enough_sentences_in_both_parts(rows: dict[str, Rows]) -> None:
    """There are at least twelve intents, each with the agreed number of sentences to train on and to hold out."""
    train = Counter(label for label, _ in rows["train"])
    heldout = Counter(label for label, _ in rows["heldout"])
    assert len(train) >= 12
    assert train.keys() == heldout.keys()
    assert min(train.values()) >= TRAIN_PER_INTENT
    assert min(heldout.values()) >= HELDOUT_PER_INTENT


@pytest.mark.parametrize("part", ["train", "heldout"])
def test_the_files_are_plain_tab_separated_lines(part: str) -> None:
    """Every line is one label, one tab and one trimmed sentence in UTF-8, and the file ends with a line feed."""
    content = (EXAMPLES / "intent" / "data" / f"{part}.tsv").read_bytes().decode("utf-8")
    assert content.endswith("\n")
    for line in content.splitlines():
        label, sentence = line.split("\t")
        assert label.isidentifier()
        assert sentence
        assert sentence == sentence.strip()


def test_no_sentence_comes_twice(rows: dict[str, Rows]) -> None:
    """No sentence is repeated within or across the two parts, whatever its case and punctuation."""
    counts = Counter(" ".join(words) for part in rows.values() for _, words in part)
    assert [sentence for sentence, count in counts.items() if count > 1] == []


def test_heldout_shares_no_run_of_words_with_training(rows: dict[str, Rows]) -> None:
    """No four words in a row of a held-out sentence stand in any training sentence."""
    seen = {tuple(words[at : at + SHARED_RUN]) for _, words in rows["train"] for at in range(len(words) - 3)}
    shared = [
        " ".join(words)
        for _, words in rows["heldout"]
        for at in range(len(words) - 3)
        if tuple(words[at : at + SHARED_RUN]) in seen
    ]
    assert shared == []


def test_heldout_is_not_made_of_a_training_sentences_words(rows: dict[str, Rows]) -> None:
    """No held-out sentence has a word-level Jaccard similarity over 0.6 with any training sentence."""
    similar = [
        (" ".join(heldout), " ".join(train))
        for _, heldout in rows["heldout"]
        for _, train in rows["train"]
        if len({*heldout} & {*train}) > SIMILARITY * len({*heldout} | {*train})
    ]
    assert similar == []


def test_heldout_fills_no_training_frame(rows: dict[str, Rows]) -> None:
    """No held-out sentence has over 60 % of its words in common, in order, with any training sentence."""
    framed = [
        (" ".join(heldout), " ".join(train))
        for _, heldout in rows["heldout"]
        for _, train in rows["train"]
        if longest_common_subsequence(heldout, train) > SIMILARITY * max(len(heldout), len(train))
    ]
    assert framed == []
