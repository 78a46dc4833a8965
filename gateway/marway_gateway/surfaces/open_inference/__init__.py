"""The Open Inference Protocol as one surface."""
