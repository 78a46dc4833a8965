"""A handler whose loads take 2.5 s and whose answers take 0.3 s, as those of large models do."""

import time


class SlowLoad:
    def initialize(self, context):
        time.sleep(2.5)

    def handle(self, data, context):
        time.sleep(0.3)
        return [{"rows": len(data)} for _ in data]
