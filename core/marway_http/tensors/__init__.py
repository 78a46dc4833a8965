"""Between tensors of the Open Inference Protocol and the rows of a handler; docs/protocols.md says how they meet."""
