"""What was kept of predictions, searched for somebody who looks at a page: bounded, and in a process of its own."""
