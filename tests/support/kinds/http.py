"""Any server over HTTP: LitServe and BentoML, which serve every version themselves."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from marway_archiver import publish_bundle
from support.kinds.kind import TAKES_S, Kind
from support.servers import Server
from support.servers.bentoml import BentoML
from support.servers.litserve import LitServe

__all__ = ["BentoMLKind", "LitServeKind"]

_LITSERVE = """\
import sys
import time
import litserve

class Says(litserve.LitAPI):
    def setup(self, device):
        self.version = self.api_path.rpartition("/")[2]

    def predict(self, text):
        time.sleep({takes_s})
        return {"said": self.version + " " + text}

if __name__ == "__main__":
    versions = [Says(api_path="/versions/" + version) for version in ("1.0", "2.0")]
    server = litserve.LitServer(versions, accelerator="cpu", workers_per_device=1)
    server.run(host="127.0.0.1", port=int(sys.argv[1]), num_api_servers=1, generate_client_file=False)
"""
_BENTOML = """\
import asyncio
import bentoml
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

async def says(request):
    await asyncio.sleep({takes_s})
    return PlainTextResponse(request.path_params["version"] + " " + (await request.body()).decode())

@bentoml.asgi_app(Starlette(routes=[Route("/{version}", says, methods=["POST"])]), path="/versions")
@bentoml.service(workers=1)
class Service:
    @bentoml.api
    def predict(self, text: str) -> str:
        return text
"""


class LitServeKind(Kind):
    """It has a path for each version, and takes JSON."""

    name = "http-litserve"
    backend = "http"
    body = b'"hello"'
    content_type = "application/json"

    def server(self, directory: Path) -> Server:
        (directory / "server.py").write_text(_LITSERVE.replace("{takes_s}", str(TAKES_S)))
        return LitServe(directory, "server.py")

    def publish(self, registry: str, scratch: Path, model: str, version: str) -> None:
        publish_bundle(model_name=model, version=version, backend=self.backend, registry=registry)

    def settings(self, server: Server) -> Mapping[str, object]:
        return {
            "http_predict": f"{server.url}/versions/{{version}}",
            "http_health": f"{server.url}{server.health}",
        }


class BentoMLKind(LitServeKind):
    """It takes anything."""

    name = "http-bentoml"
    body = Kind.body
    content_type = Kind.content_type

    def server(self, directory: Path) -> Server:
        (directory / "service.py").write_text(_BENTOML.replace("{takes_s}", str(TAKES_S)))
        return BentoML(directory, "service:Service")
