"""A program that asks a gateway by a client that was generated: `python generated_client.py URL`, where `ours` is."""

import sys

from ours import AuthenticatedClient
from ours.api.feedback import feedback
from ours.api.models import list_models, show_model
from ours.api.open_inference import infer
from ours.models import FeedbackEntry, InferRequestBody, Problem

client = AuthenticatedClient(base_url=sys.argv[1], token="one-token.of~ours")

listed = list_models.sync(client=client)
assert [(each.name, each.labels.to_dict()) for each in listed.models] == [("intent", {"PROD": "1.0"})], listed

missing = show_model.sync("nothing", client=client)
assert isinstance(missing, Problem), missing
assert (missing.code, missing.status) == ("model_not_found", 404), missing

asked = {"inputs": [{"name": "text", "shape": [2], "datatype": "BYTES", "data": ["play jazz", "stop"]}]}
made = infer.sync_detailed("intent", client=client, body=InferRequestBody.from_dict(asked))
assert made.parsed.outputs[0].data == ["play jazz", "stop"], made

entry = FeedbackEntry(prediction_id=made.headers["x-prediction-id"], truth={"label": "play_music"}, score=0.5)
assert feedback.sync(client=client, body=entry).accepted == 1
assert feedback.sync(client=client, body=[entry, entry]).accepted == 2

# The native route takes any body: for that the generator has no form, and its httpx client is asked.
plain = client.get_httpx_client().post("/predict/intent", json={"text": "stop"})
assert plain.json() == {"text": "stop"}, plain
print("all of it")
