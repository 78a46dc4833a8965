"""HTTP/1.1 as clients speak it: connections, requests, bounds; uvicorn's server runs them."""
