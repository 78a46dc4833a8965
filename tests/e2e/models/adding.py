"""A handler that adds up the numbers of each sequence, as TorchServe's example of stateful inference does."""

import os


class Adding:
    def __init__(self):
        self.initialized = False
        self.sums = {}
        self.config = {}

    def initialize(self, context):
        self.config = dict(context.model_yaml_config)
        self.initialized = True

    def handle(self, data, context):
        """Answer with each sequence's sum; `end` ends it, `die` ends the process, `config` gives what the archive says.

        In the header `x-rows` is how many rows the call had, in `x-worker` who answered.
        """
        answers = []
        for index, row in enumerate(data):
            name = context.get_sequence_id(index)
            if context.get_request_header(index, context.header_key_sequence_start):
                self.sums[name] = 0
            value = row.get("data") or row.get("body")
            text = bytes(value).decode() if isinstance(value, (bytes, bytearray)) else str(value)
            if text == "die":
                os._exit(3)
            if text == "config":
                answers.append({key: self.config[key] for key in sorted(self.config)})
                continue
            if text == "end":
                context.set_response_header(index, context.header_key_sequence_end, name)
            self.sums[name] = self.sums.get(name, 0) + (0 if text == "end" else int(text))
            context.set_response_header(index, "x-rows", str(len(data)))
            context.set_response_header(index, "x-worker", str(os.getpid()))
            answers.append(str(self.sums[name]))
        return answers
