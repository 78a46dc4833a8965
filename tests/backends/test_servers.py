"""The real model servers that other tests run: each answers, is killed, and comes back on the ports that it had."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from packaging.utils import canonicalize_name

from support.every import usual
from support.servers import (
    Server,
    running_bentoml,
    running_litserve,
    running_mlserver,
    running_mms,
    running_transformers,
    running_triton,
)
from support.servers.environments import NAMES, asked, locked
from support.servers.transformers import Transformers
from support.torchserve import archive
from support.up import wait_until

Running = Callable[[Path], AbstractContextManager[Server]]

TRITON_CONFIG = """\
name: "upper"
backend: "python"
input [{ name: "text", data_type: TYPE_STRING, dims: [1] }]
output [{ name: "said", data_type: TYPE_STRING, dims: [1] }]
"""
TRITON_MODEL = """\
import numpy
import triton_python_backend_utils as utils

class TritonPythonModel:
    def execute(self, requests):
        answers = []
        for request in requests:
            text = utils.get_input_tensor_by_name(request, "text").as_numpy()
            said = numpy.array([each.upper() for each in text.ravel()], dtype=object).reshape(text.shape)
            answers.append(utils.InferenceResponse([utils.Tensor("said", said)]))
        return answers
"""
MLSERVER_MODEL = """\
from mlserver import MLModel
from mlserver.codecs import StringCodec
from mlserver.types import InferenceResponse

class Upper(MLModel):
    async def predict(self, payload):
        texts = [text.upper() for text in StringCodec.decode_input(payload.inputs[0])]
        return InferenceResponse(model_name=self.name, outputs=[StringCodec.encode_output("said", texts)])
"""
MMS_HANDLER = """\
def handle(data, context):
    return None if data is None else [bytes(row.get("body") or row.get("data")).decode().upper() for row in data]
"""
BENTOML_SERVICE = """\
import bentoml

@bentoml.service
class Service:
    @bentoml.api
    def predict(self, text: str) -> str:
        return text.upper()
"""
LITSERVE_SERVER = """\
import sys
import litserve

class Upper(litserve.LitAPI):
    def setup(self, device):
        pass
    def predict(self, request):
        return request["text"].upper()

if __name__ == "__main__":
    server = litserve.LitServer(Upper(), accelerator="cpu", workers_per_device=1)
    server.run(host="127.0.0.1", port=int(sys.argv[1]), num_api_servers=1, generate_client_file=False)
"""
V2 = {"inputs": [{"name": "text", "shape": [1], "datatype": "BYTES", "data": ["hello"]}]}


def _triton(home: Path) -> None:
    version = home / "models" / "upper" / "1"
    version.mkdir(parents=True)
    (version.parent / "config.pbtxt").write_text(TRITON_CONFIG)
    (version / "model.py").write_text(TRITON_MODEL)


def _mlserver(home: Path) -> None:
    model = home / "models" / "upper"
    model.mkdir(parents=True)
    (model / "model-settings.json").write_text(json.dumps({"name": "upper", "implementation": "model.Upper"}))
    (model / "model.py").write_text(MLSERVER_MODEL)


def _mms(home: Path) -> None:
    archive(home / "models", "upper", MMS_HANDLER, file="upper.mar")


def _bentoml(home: Path) -> None:
    home.mkdir()
    (home / "service.py").write_text(BENTOML_SERVICE)


def _litserve(home: Path) -> None:
    home.mkdir()
    (home / "server.py").write_text(LITSERVE_SERVER)


def _post(address: str, body: Any = None, **query: str) -> Any:
    answer = httpx.post(address, json=body, params=query, timeout=60, trust_env=False)
    assert answer.status_code == 200, answer.text
    is_json = answer.content and answer.headers.get("content-type", "").startswith("application/json")
    return answer.json() if is_json else answer.text


def _ask_triton(server: Server) -> str:
    _post(f"{server.url}/v2/repository/models/upper/load")
    return str(_post(f"{server.url}/v2/models/upper/infer", V2)["outputs"][0]["data"][0])


def _ask_mlserver(server: Server) -> str:
    return str(_post(f"{server.url}/v2/models/upper/infer", V2)["outputs"][0]["data"][0])


def _ask_mms(server: Server) -> str:
    _post(f"{server.management}/models", url="upper.mar", initial_workers="1", synchronous="true")
    answer = httpx.post(f"{server.url}/predictions/upper", content=b"hello", timeout=60, trust_env=False)
    assert answer.status_code == 200, answer.text
    return answer.text


def _ask_bentoml(server: Server) -> str:
    return str(_post(f"{server.url}/predict", {"text": "hello"}))


def _ask_litserve(server: Server) -> str:
    return str(_post(f"{server.url}/predict", {"text": "hello"}))


def _ask_transformers(server: Server) -> str:
    messages = [{"role": "user", "content": "hello"}]
    assert isinstance(server, Transformers)
    body = {"model": server.name, "messages": messages, "max_tokens": 8}
    said = _post(f"{server.openai}/chat/completions", body)
    return "HELLO" if said["choices"][0]["message"]["role"] == "assistant" else ""


SERVERS: dict[str, tuple[Callable[[Path], None], Running, Callable[[Server], str]]] = {
    "triton": (_triton, running_triton, _ask_triton),
    "mlserver": (_mlserver, running_mlserver, _ask_mlserver),
    "mms": (_mms, running_mms, _ask_mms),
    "bentoml": (_bentoml, running_bentoml, _ask_bentoml),
    "litserve": (_litserve, running_litserve, _ask_litserve),
    "transformers": (lambda home: None, running_transformers, _ask_transformers),
}


@pytest.mark.extended  # starts a real server twice: those of `make test` need none
@pytest.mark.parametrize(
    "name", usual("bentoml", more=sorted(SERVERS.keys() - {"bentoml"}))
)  # the others are killed in releases
def test_a_server_answers_and_comes_back_where_it_was(name: str, tmp_path: Path) -> None:
    """It answers; killed, all that it started is gone; started again, it has the same addresses and answers."""
    prepare, running, ask = SERVERS[name]
    home = tmp_path / name
    prepare(home)
    with running(home) as server:
        assert ask(server) == "HELLO"
        started = [psutil.Process(server.pid), *psutil.Process(server.pid).children(recursive=True)]
        server.kill()
        assert not any(_runs(each) for each in started)
        server.start()
        assert ask(server) == "HELLO"
        started = [psutil.Process(server.pid), *psutil.Process(server.pid).children(recursive=True)]
    assert not any(_runs(each) for each in started)


def test_a_server_ends_with_the_process_that_started_it(tmp_path: Path) -> None:
    """Whatever starts a server may be killed hard: the server and its children are gone as well."""
    script = """\
import sys, time
from pathlib import Path
from support.servers.process import Server

class Sleeps(Server):
    def command(self):
        return ["/bin/sh", "-c", "setsid sleep 600 & sleep 600 & wait"]
    def serves(self):
        return self._pid_file.exists()

server = Sleeps(Path(sys.argv[1]))
server.start()
print(server.pid, flush=True)
time.sleep(600)
"""
    tests = str(Path(__file__).parents[1])
    command = [sys.executable, "-c", f"import sys; sys.path.insert(0, {tests!r})\n{script}", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as starter:
        assert starter.stdout is not None
        server = psutil.Process(int(starter.stdout.readline()))
        wait_until(lambda: len(server.children()) == 2, timeout_s=10, what="it has started what it starts")
        started = [server, *server.children(recursive=True)]
        starter.kill()
    wait_until(lambda: not any(_runs(each) for each in started), timeout_s=10, what="all of it is gone")


@pytest.mark.parametrize("name", NAMES)
def test_what_is_asked_for_is_what_is_locked(name: str) -> None:
    """The versions of an environment's lock are those that its extra pins."""
    lines = [line for line in locked(name).read_text().splitlines() if line and not line.startswith("#")]
    versions = {canonicalize_name(line.partition("==")[0]): line.partition("==")[2].partition(" ")[0] for line in lines}
    assert all(versions.values()), "every line names one version"
    for each in asked(name):
        package, _, version = each.partition("==")
        assert versions[canonicalize_name(package.partition("[")[0])].partition("+")[0] == version


def _runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
