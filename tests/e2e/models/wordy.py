"""A handler that prints, logs and raises."""

import logging

logger = logging.getLogger("wordy")


class Wordy:
    def initialize(self, context):
        print("initialized")

    def handle(self, data, context):
        texts = [str(row.get("data") or row.get("body")) for row in data]
        print("asked for", ", ".join(texts))
        logger.info("logged with %d rows", len(texts))
        if any("boom" in text for text in texts):
            raise ValueError("a word that nobody likes")
        return texts
