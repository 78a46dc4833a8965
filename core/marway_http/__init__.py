"""What gateway and sidecar both speak: HTTP connections, frames, and how their requests run. Needs their extras."""
