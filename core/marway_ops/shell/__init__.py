"""What the verbs of every room share: options, printing, and the variables of the environment."""
