"""What copies of a label's requests told of a version: counted by gateways, kept beside the models, read by anybody."""
