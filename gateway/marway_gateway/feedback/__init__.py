"""What people and systems say of predictions later: read, and kept before anybody is told that it was."""
