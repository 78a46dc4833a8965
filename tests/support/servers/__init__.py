"""Real model servers of other makers, each from packages in an environment of its own, for the tests of backends.

`environment(name)` makes the environment on first use; `running_NAME(directory)` runs a server for the length of a
block, with what the test has put into the directory, and its whole process group is gone afterwards, also when the
process of pytest was killed.
"""

from __future__ import annotations

from support.servers.bentoml import running_bentoml
from support.servers.environments import environment
from support.servers.litserve import running_litserve
from support.servers.mlserver import running_mlserver
from support.servers.mms import running_mms
from support.servers.process import Server
from support.servers.transformers import running_transformers
from support.servers.triton import running_triton

__all__ = [
    "Server",
    "environment",
    "running_bentoml",
    "running_litserve",
    "running_mlserver",
    "running_mms",
    "running_transformers",
    "running_triton",
]
