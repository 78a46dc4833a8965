"""A model that takes 50 milliseconds of nobody's processor: what waits for it can be seen beside it."""

import json
import time

TAKES_S = 0.05


class Slow:
    """Answers each batch after a while."""

    def __init__(self):
        self.initialized = False

    def initialize(self, context):
        self.initialized = True

    def handle(self, data, context):
        time.sleep(TAKES_S)
        return [json.dumps({"waited": TAKES_S}) for _ in data]
