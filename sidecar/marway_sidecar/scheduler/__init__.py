"""Which request has which worker, when, and in one call with which others."""
