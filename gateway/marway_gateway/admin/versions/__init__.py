"""What is inside a version, and how it differs from another: admin routes, and what the console shows of it."""
