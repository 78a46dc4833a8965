"""Packs and checks bundles: a model server's own directory, as one archive."""
