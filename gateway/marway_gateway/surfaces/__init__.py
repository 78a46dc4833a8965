"""The protocols that clients speak; all of them make the one predict call of `marway_gateway.predict.pipeline`."""
