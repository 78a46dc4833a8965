"""The pages of what was kept of predictions: searched, and one of them."""
