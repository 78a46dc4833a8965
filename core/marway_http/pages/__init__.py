"""The front page, the API page and what OpenAPI documents share."""
