"""How a label is divided: rollouts and shadow copies, each change by one compare-and-swap."""
