"""What was kept, to look at: of predictions, and events; admin routes, and what the console shows of it."""
