"""Text classification: one text a row in, one label with its score out."""

from typing import TYPE_CHECKING

if TYPE_CHECKING or __package__:
    from marway_handlers.marway_handler_base import TEXT_KEYS, Classifier
else:  # in an archive, beside this file
    from marway_handler_base import TEXT_KEYS, Classifier


class TextClassifier(Classifier):
    """Classifies texts with an eager-mode model, N rows in one forward pass.

    The archive carries:

    - a model file with one ``nn.Module`` class that is built without arguments, whose ``encode(texts)`` gives a tuple
      of tensors and whose ``forward(*encoded)`` gives logits of shape (number of texts, number of labels);
    - a serialized file with its ``state_dict``;
    - ``labels.json``: a list of the labels, in the order of the logits.

    A row is answered with ``{"label": str, "score": float, "scores": {label: float}}``, scores from 0 to 1 with the
    best three first; one that is not a text with status 400 and ``{"error": "…"}`` as its own answer, one whose scores
    are no numbers (NaN) with status 500. Its neighbours are not touched.
    """

    keys = TEXT_KEYS
