"""Environments: what versions require and this Python does not have, each in a directory that goes in front of it."""
