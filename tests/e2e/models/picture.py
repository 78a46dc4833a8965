"""A handler that answers a picture: bytes that are no text, with an escape sequence among them."""


def handle(data, context):
    if data is None:
        return None  # TorchServe initialises function handlers so
    for index in range(len(data)):
        context.set_response_content_type(index, "image/png")
    return [b"\x89PNG\r\n\x1a\n\x00\x1b[31m"] * len(data)
