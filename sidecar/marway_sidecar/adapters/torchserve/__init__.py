"""The adapter for TorchServe 0.12, started by Marway's runtime. No other module knows TorchServe."""

from marway_sidecar.adapters.torchserve.adapter import TorchServeAdapter

__all__ = ["TorchServeAdapter"]
