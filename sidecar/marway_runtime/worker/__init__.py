"""What runs inside a TorchServe worker process, before and around TorchServe's own worker code."""
