"""The contract between gateway and sidecar, and what both say to callers: headers, problems, pod descriptions."""
