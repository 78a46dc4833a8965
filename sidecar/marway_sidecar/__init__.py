"""The sidecar: makes any version servable on demand beside one model server, and speaks that server's protocol."""
