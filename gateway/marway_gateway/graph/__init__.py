"""Runs graphs: several models called for one answer (`marway.graphs`)."""
