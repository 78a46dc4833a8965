"""A gateway of several processes, which share its ports: one process of Python uses one processor."""

from marway_gateway.processes.parent import run_processes

__all__ = ["run_processes"]
