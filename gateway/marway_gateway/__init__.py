"""Marway's gateway: the public front door.

It resolves a model reference to one version, picks a pod, forwards the request and places it again when a pod did not
take it. It keeps no state of its own: any number of gateways run side by side and agree without talking to one another.
"""

__all__: list[str] = []
