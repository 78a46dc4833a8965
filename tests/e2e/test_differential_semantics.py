"""TorchServe's rarer ways to call a handler, on bare TorchServe and on a pod of each engine: the answers are equal.

Archives in the manner of TorchServe's own test archives. Where they differ on purpose, `docs/torchserve.md` says so.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import httpx
import pytest

from marway.registry import open_registry
from marway_archiver import publish_archive
from support.gateways import GatewayProcess
from support.torchserve import StockTorchServe, archive, pod

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(300),
    # tests/core/worker, tests/runtime/engines/native and tests/sidecar/backends/test_torchserve_contract.py hold each
    # in a second.
    pytest.mark.extended,
]

ASYNC = '''
import asyncio

from ts.handler_utils.utils import send_intermediate_predict_response
from ts.torch_handler.base_handler import BaseHandler


class Async(BaseHandler):
    """`async def`, as TorchServe's handler for vLLM is."""

    def initialize(self, context):
        self.met = asyncio.Event()
        self.initialized = True

    async def handle(self, data, context):
        said = data[0].get("data") or data[0].get("body")
        said = said if isinstance(said, str) else bytes(said).decode()
        if said == "pieces":
            for number in range(3):
                send_intermediate_predict_response([f"p{number} "], context.request_ids, "ok", 200, context)
                await asyncio.sleep(0.01)
            return ["end"]
        if said == "wait":
            await asyncio.wait_for(self.met.wait(), 20)
        if said == "meet":
            self.met.set()
        context.set_response_status(code=202, idx=0)
        context.set_response_header(0, "X-Said", said)
        return [{"said": said, "url_path": context.get_request_header(0, "url_path"), "rows": len(data)}]
'''
CONTINUOUS = '''
from ts.torch_handler.base_handler import BaseHandler


class Continuous(BaseHandler):
    """A word of each row with each call; rows are kept by their ids, as in TorchServe's own example."""

    def initialize(self, context):
        self.context = context
        self.context.cache = {}
        self.initialized = True

    def preprocess(self, data):
        ids = [self.context.get_request_id(index) for index in range(len(data))]
        for request_id, row in zip(ids, data):
            if request_id not in self.context.cache:
                said = row.get("data") or row.get("body")
                said = said if isinstance(said, str) else bytes(said).decode()
                self.context.cache[request_id] = {"words": said.split(), "stop": self.stop(request_id)}
            else:
                assert not row, row
        return ids

    def stop(self, request_id):
        def ends(piece):
            if self.context.cache[request_id]["words"]:
                return False
            del self.context.cache[request_id]
            return True

        return ends

    def inference(self, ids):
        return [self.context.cache[request_id]["words"].pop(0) for request_id in ids]

    def postprocess(self, words):
        ids = list(self.context.request_ids.values())
        if "raise" in words:
            self.context.cache.clear()
            raise ValueError("on purpose")
        for index, word in enumerate(words):
            tenant = self.context.get_request_header(index, "x-tenant") or ""
            self.context.set_response_header(index, "x-tenant", tenant)
        self.context.stopping_criteria = [self.context.cache[request_id]["stop"] for request_id in ids]
        return [word + " " for word in words]
'''
MICRO = '''
import threading

from ts.handler_utils.micro_batching import MicroBatching
from ts.torch_handler.base_handler import BaseHandler


class Micro(BaseHandler):
    """In three steps, each in threads of its own, with two rows at a time."""

    def __init__(self):
        super().__init__()
        self.handle = MicroBatching(self, micro_batch_size=2, parallelism={"preprocess": 1, "inference": 2})

    def initialize(self, context):
        self.context = context
        self.initialized = True

    def preprocess(self, data):
        given = [row.get("data") or row.get("body") for row in data]
        return [each if isinstance(each, str) else bytes(each).decode() for each in given]

    def inference(self, texts):
        assert threading.current_thread() is not threading.main_thread()
        return [{"said": text, "index": self.handle.get_micro_batch_idx() is not None} for text in texts]

    def postprocess(self, answers):
        return answers
'''
PIECES = """
from ts.handler_utils.utils import send_intermediate_predict_response


def handle(data, context):
    if data is None:
        return None
    for number in range(3):
        context.set_response_header(0, "X-Path", context.get_request_header(0, "url_path"))
        send_intermediate_predict_response([f"p{number} "], context.request_ids, "ok", 200, context)
    return ["end"]
"""
DESCRIBES = '''
from ts.torch_handler.base_handler import BaseHandler


class Describes(BaseHandler):
    """Says of its model what TorchServe shows as customized metadata."""

    def initialize(self, context):
        self.context = context
        self.initialized = True

    def preprocess(self, data):
        return data

    def inference(self, data, *args, **kwargs):
        return ["predicted"] * len(data)

    def postprocess(self, data):
        return data

    def describe_handle(self):
        return {"labels": ["cat", "dog"], "model": self.context.model_name}
'''
SLOW = """
import time


def handle(data, context):
    if data is None:
        return None
    said = data[0].get("data") or data[0].get("body")
    time.sleep(5 if said == "slow" else 0)
    return ["fast"] * len(data)
"""
LATE = """
import time


def handle(data, context):
    if data is None:
        time.sleep(5)
    return data
"""
WORKERS = "minWorkers: 1\nmaxWorkers: 1\n"


@dataclass(frozen=True)
class Archive:
    source: str
    config: str = ""
    streaming: bool = False


ARCHIVES = {
    "async": Archive(ASYNC, "asyncCommunication: true\n", streaming=True),
    "continuous": Archive(CONTINUOUS, "continuousBatching: true\nbatchSize: 4\n"),
    "micro": Archive(MICRO, "batchSize: 4\nmaxBatchDelay: 50\n"),
    "pieces": Archive(PIECES, streaming=True),
    "describes": Archive(DESCRIBES),
    "slow": Archive(SLOW, "responseTimeout: 1\n"),
}


@dataclass(frozen=True)
class Column:
    """Where requests go, and which engine of Marway is behind it."""

    inference: httpx.Client
    described: httpx.Client
    pod: httpx.Client | None = None
    engine: str = ""

    def ask(self, model: str, said: str, path: str = "", **headers: str) -> tuple[int, list[str], httpx.Headers]:
        """Return the status, the answer, piece by piece where it comes so, and the headers."""
        known = {"content-type": "text/plain", **{name.replace("_", "-"): text for name, text in headers.items()}}
        url = f"/predictions/{model}/1.0{path}"
        with self.inference.stream("POST", url, content=said, headers=known) as answer:
            return answer.status_code, list(answer.iter_text()), answer.headers

    def ask_all(self, model: str, said: Sequence[str]) -> list[tuple[int, str]]:
        """Ask all of these at once, and return status and answer of each."""
        with ThreadPoolExecutor(len(said)) as threads:
            return [
                (status, "".join(pieces)) for status, pieces, _ in threads.map(lambda each: self.ask(model, each), said)
            ]


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[StockTorchServe, str]]:
    """A TorchServe that has the archives, and a registry in which they are published."""
    home = tmp_path_factory.mktemp("semantics")
    registry = f"file://{home}/registry"
    open_registry(registry, create=True)
    with StockTorchServe(home / "stock", tokens=False) as stock:
        for name, each in ARCHIVES.items():
            path = archive(stock.store, name, each.source, config=WORKERS + each.config)
            query = {"url": path.name, "initial_workers": 1, "model_name": name}
            answer = httpx.post(f"{stock.addresses['management']}/models", params=query, timeout=60, trust_env=False)
            assert answer.status_code == 200, answer.text
            record = {"serving": {"streaming": each.streaming}}
            publish_archive(path, registry=registry, label="PROD", force=True, record=record)
        late = archive(stock.store, "late", LATE, config=WORKERS + "startupTimeout: 1\n")
        publish_archive(late, registry=registry, label="PROD", force=True)
        yield stock, registry


@pytest.fixture(scope="module")
def bare(published: tuple[StockTorchServe, str]) -> Iterator[Column]:
    stock, _ = published
    with contextlib.ExitStack() as stack:
        yield Column(*(stack.enter_context(client(stock.addresses[kind])) for kind in ("inference", "management")))


@pytest.fixture(scope="module", params=["torchserve", "native"])
def ours(
    request: pytest.FixtureRequest, published: tuple[StockTorchServe, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Column]:
    _, registry = published
    home = tmp_path_factory.mktemp(request.param)
    with contextlib.ExitStack() as stack:
        url = stack.enter_context(pod(home / "ours", registry, engine=request.param))
        gateway = stack.enter_context(GatewayProcess(home / "gateway", registry=registry, pods=[f"a={url}"]))
        public = stack.enter_context(client(gateway.url))
        yield Column(public, public, stack.enter_context(client(url)), request.param)


def client(url: str) -> httpx.Client:
    return httpx.Client(base_url=url, timeout=60, trust_env=False)


def test_async_calls_are_under_way_at_once(bare: Column, ours: Column) -> None:
    """A request that waits for a later one is answered, with its own path, status and headers."""
    for column in (bare, ours):
        assert column.ask_all("async", ["wait", "meet"]) == [
            (202, json.dumps({"said": said, "url_path": "", "rows": 1}, indent=2)) for said in ("wait", "meet")
        ]
    expected, got = (column.ask("async", "x", "/v1/models") for column in (bare, ours))
    assert got[:2] == expected[:2]
    assert (json.loads(got[1][0])["url_path"], got[2]["x-said"]) == ("v1/models", "x")
    assert expected[2]["x-said"] == "x"


@pytest.mark.parametrize("model", ["async", "pieces"])
def test_pieces_come_one_by_one(bare: Column, ours: Column, model: str) -> None:
    """What a handler sends on the way and what it returns are the chunks of one answer."""
    expected, got = (column.ask(model, "pieces", "/a/b") for column in (bare, ours))
    assert "".join(got[1]) == "".join(expected[1]) == "p0 p1 p2 end"
    assert got[2].get("x-path") == expected[2].get("x-path") == ("a/b" if model == "pieces" else None)


def test_continuous_batching(bare: Column, ours: Column) -> None:
    """Each row gets its own words, a piece a call, until its stopping criterion says so; so do many at once."""
    expected, got = (column.ask("continuous", "a b c d", x_tenant="blue") for column in (bare, ours))
    assert (got[0], "".join(got[1])) == (expected[0], "".join(expected[1])) == (200, "a b c d ")
    assert got[2]["x-tenant"] == expected[2]["x-tenant"] == "blue"
    assert len(got[1]) > 1
    lengths = {"u": 5, "v": 9, "w": 4, "x": 7, "y": 4, "z": 6}  # TorchServe needs two words at least
    said = [" ".join(f"{name}{number}" for number in range(length)) for name, length in lengths.items()]
    for column in (bare, ours):
        assert column.ask_all("continuous", said) == [(200, f"{each} ") for each in said]


def test_differs_an_answer_that_is_whole_at_once(ours: Column) -> None:
    """With continuous batching, TorchServe's REST never answers a row whose first piece is its last."""
    assert ours.ask("continuous", "single")[:2] == (200, ["single "])


def test_differs_who_is_told_of_an_exception(ours: Column) -> None:
    """TorchServe cuts the connection of a row that has begun; here the message comes, and the next row is served."""
    status, pieces, _ = ours.ask("continuous", "raise it")
    assert (status, "on purpose" in "".join(pieces)) == (500, True)
    assert ours.ask("continuous", "a b")[:1] == (200,)


def test_micro_batches(bare: Column, ours: Column) -> None:
    """A handler in `MicroBatching` answers each of many rows with its own, from its threads."""
    said = [f"row {number}" for number in range(8)]
    for column in (bare, ours):
        assert column.ask_all("micro", said) == [
            (200, json.dumps({"said": each, "index": True}, indent=2)) for each in said
        ]


def test_a_handler_describes_its_model(bare: Column, ours: Column) -> None:
    """`?customized=true` has what `describe_handle` returns; a prediction is none."""
    metadata = {"labels": ["cat", "dog"], "model": "describes"}
    for column in (bare, ours):
        answer = column.described.get("/models/describes/1.0?customized=true")
        assert answer.status_code == 200, answer.text
        ((document,),) = [answer.json()]
        assert (document["modelName"], document["modelVersion"]) == ("describes", "1.0")
        assert document["customizedMetadata"] == metadata
        assert column.ask("describes", "x")[1] == ["predicted"]


def test_differs_a_call_that_takes_too_long(ours: Column) -> None:
    """`responseTimeout` ends the worker on all. TorchServe says 500, as of any dead worker; here it is 504."""
    assert ours.ask("slow", "slow")[0] == 504
    assert ours.ask("slow", "x")[:2] == (200, ["fast"])


def test_a_worker_that_takes_too_long_to_start(ours: Column) -> None:
    """`startupTimeout` ends the load."""
    status, pieces, _ = ours.ask("late", "x")
    assert status >= 500
    if ours.engine == "native":  # TorchServe says no more than that its worker did not start
        assert "startupTimeout" in "".join(pieces)


def test_times_run_out_on_bare_torchserve(bare: Column) -> None:
    """What both tests above compare with: a call, and a start, that take longer than the archive allows."""
    assert bare.ask("slow", "slow")[0] == 500
    query = {"url": "late-1.0.mar", "initial_workers": 1, "model_name": "late"}
    assert bare.described.post("/models", params=query).status_code >= 500


def test_what_an_async_handler_measures_is_shown(ours: Column) -> None:
    """Metrics of pieces' calls and of calls that run at once are on the pod's `/metrics`, by model and version."""
    assert ours.pod is not None
    ours.ask("micro", "x")
    text = ours.pod.get("/metrics").text
    assert "marway_handler_HandlerTime{" in text
    assert 'model="micro",version="1.0"' in text
