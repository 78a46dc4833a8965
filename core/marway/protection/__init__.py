"""Protected labels: what they ask for before they move, and what of it is missing."""
