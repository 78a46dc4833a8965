"""`python -m marway_gateway.processes`, which a gateway of several processes starts."""

from marway_gateway.processes.member import main

__all__ = ["main"]

if __name__ == "__main__":
    main()
