"""From an archive to a published version."""
