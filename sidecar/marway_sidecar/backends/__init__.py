"""Adapters: each speaks one model server's protocols, behind one interface."""
