"""Whether inputs and outputs are still what they were: in training, in the golden examples, or some time before."""
