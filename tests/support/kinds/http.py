"""Any server over HTTP: LitServe and BentoML, which serve every version themselves."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from marway_archiver import publish_bundle
from support.kinds.kind import Kind
from support.servers import Server
from support.servers.bentoml import BentoML
from support.servers.litserve import LitServe

__all__ = ["BentoMLKind", "LitServeKind"]

_LITSERVE = """\
import sys
import litserve
from fastapi import Request

class Says(litserve.LitAPI):
    def setup(self, device):
        pass

    async def decode_request(self, request: Request):
        return request.query_params["version"] + " " + (await request.body()).decode()

    async def predict(self, text):
        return text

    async def encode_response(self, text):
        return {"said": text}

if __name__ == "__main__":
    server = litserve.LitServer(Says(enable_async=True), accelerator="cpu", workers_per_device=1)
    server.run(host="127.0.0.1", port=int(sys.argv[1]), num_api_servers=1, generate_client_file=False)
"""
_BENTOML = """\
import bentoml
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

async def says(request):
    return PlainTextResponse(request.path_params["version"] + " " + (await request.body()).decode())

@bentoml.asgi_app(Starlette(routes=[Route("/{version}", says, methods=["POST"])]), path="/versions")
@bentoml.service(workers=1)
class Service:
    @bentoml.api
    def predict(self, text: str) -> str:
        return text
"""


class LitServeKind(Kind):
    """The version is a parameter of its URL."""

    name = "http-litserve"
    backend = "http"

    def server(self, directory: Path) -> Server:
        (directory / "server.py").write_text(_LITSERVE)
        return LitServe(directory, "server.py")

    def publish(self, registry: str, scratch: Path, model: str, version: str) -> None:
        publish_bundle(model_name=model, version=version, backend=self.backend, registry=registry)

    def settings(self, server: Server) -> Mapping[str, object]:
        return {"http_predict": f"{server.url}/predict?version={{version}}", "http_health": f"{server.url}/health"}


class BentoMLKind(LitServeKind):
    """The version is in its path."""

    name = "http-bentoml"

    def server(self, directory: Path) -> Server:
        (directory / "service.py").write_text(_BENTOML)
        return BentoML(directory, "service:Service")

    def settings(self, server: Server) -> Mapping[str, object]:
        return {"http_predict": f"{server.url}/versions/{{version}}", "http_health": f"{server.url}/readyz"}
