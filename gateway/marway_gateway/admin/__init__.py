"""The admin plane: releases with proof, serving settings, loads, deletion, pods and drains, on a port of its own."""

from marway_gateway.admin.app import create_admin_app
from marway_gateway.admin.views import PodView

__all__ = ["PodView", "create_admin_app"]
