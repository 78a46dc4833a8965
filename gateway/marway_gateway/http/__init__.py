"""HTTP as the gateway's clients speak it: connections, bodies, headers, bounds."""
