"""TorchServe's own handler with no model behind it, which leaves out how to explain."""

from ts.torch_handler.base_handler import BaseHandler


class Doubles(BaseHandler):
    def initialize(self, context):
        self.context = context
        self.initialized = True

    def preprocess(self, data):
        return [row.get("data") or row.get("body") for row in data]

    def inference(self, data, *args, **kwargs):
        return [2 * value for value in data]

    def postprocess(self, data):
        return data
