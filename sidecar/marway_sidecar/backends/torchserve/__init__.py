"""The backend for TorchServe 0.12. No other package knows how to speak to it."""

import os

# gRPC reads this when it is first used. Its "event engine" hands what comes from thread to thread once more before the
# event loop has it, which is a quarter of its processor time for a small call; without, the thread that waits for calls
# to end reads the socket itself, as it did before (https://github.com/grpc/grpc/pull/41432).
os.environ.setdefault("GRPC_EXPERIMENTS", "-event_engine_client")

from marway_sidecar.backends.torchserve.adapter import TorchServeAdapter  # first the setting
from marway_sidecar.backends.torchserve.backend import TorchServeBackend

__all__ = ["TorchServeAdapter", "TorchServeBackend"]
