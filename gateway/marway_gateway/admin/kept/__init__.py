"""What was kept of predictions, to look at: admin routes, and what the console shows of it."""
