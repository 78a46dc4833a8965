"""The backend for predictors of "Engineering Deep Learning Systems": `PredictorPredict(runId, document)` over gRPC, and
a model directory that they share.
"""

import os

# As for TorchServe: gRPC reads this when it is first used; without its event engine small calls cost a quarter less.
os.environ.setdefault("GRPC_EXPERIMENTS", "-event_engine_client")

from marway_sidecar.backends.grpc_predictor.backend import GrpcPredictorBackend  # first the setting

__all__ = ["GrpcPredictorBackend"]
