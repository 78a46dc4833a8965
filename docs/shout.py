"""The smallest handler: answers text in capitals, one answer for each row."""


class Shout:
    """TorchServe makes one of these in each worker."""

    def initialize(self, context):
        """Load what the model needs; this one needs nothing."""

    def handle(self, data, context):
        """Answer a batch: `data` has one dict a row, the body under "data"."""
        return [self.text(row["data"]).upper() for row in data]

    def text(self, value):
        return value if isinstance(value, str) else bytes(value).decode()
