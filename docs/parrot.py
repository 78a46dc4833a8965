"""The smallest handler of chat completions: it says what it was told, word by word."""

from ts.handler_utils.utils import send_intermediate_predict_response


class Parrot:
    """A model of language would stand here; TorchServe makes one of these in each worker."""

    def initialize(self, context):
        """Load what the model needs; this one needs nothing."""

    def handle(self, data, context):
        """Send each word as it is known, and return the last one. A stream has one row, the request's body as JSON."""
        asked = data[0]["body"]
        text = asked["messages"][-1]["content"] if "messages" in asked else asked["prompt"]
        *words, last = text.split()[: asked.get("max_tokens")]
        for word in words:
            send_intermediate_predict_response([f"{word} "], context.request_ids, "Intermediate", 200, context)
        return [last]
