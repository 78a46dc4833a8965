"""Graphs as versions that are released: loaded, proved, compared, copied to (`marway_gateway.admin.graph_versions`)."""
