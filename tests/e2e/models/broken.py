"""A handler that cannot be loaded."""


class Broken:
    def initialize(self, context):
        raise FileNotFoundError("weights that nobody packed")

    def handle(self, data, context):
        return ["never" for _ in data]
