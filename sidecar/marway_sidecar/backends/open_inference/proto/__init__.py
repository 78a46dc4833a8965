"""Messages of the Open Inference Protocol that only a model server's client needs."""
