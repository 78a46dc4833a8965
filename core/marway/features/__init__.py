"""What values there are in a model's inputs and outputs, field by field, in a few numbers that a record can hold."""
