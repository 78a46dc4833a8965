"""Real TorchServes: alone with a snapshot, and as KServe and ModelMesh run it."""

from __future__ import annotations

import json
import re
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from support.old_servers.manifests import INFERENCE_SERVICE, PREDICTOR, STORAGE_CONFIG
from support.old_servers.models import SCORE, SENTIMENT, SHOUT, TEXTS
from support.old_servers.router import Router
from support.old_servers.server import OldServer, write_requests
from support.torchserve import StockTorchServe, archive

__all__ = ["old_kserve", "old_modelmesh", "old_torchserve"]


def _register(server: StockTorchServe, file: str, **more: str) -> None:
    query = {"url": file, "synchronous": "true", "initial_workers": "1", **more}
    answer = httpx.post(f"{server.addresses['management']}/models", params=query, timeout=120, trust_env=False)
    assert answer.status_code == 200, answer.text


@contextmanager
def old_torchserve(home: Path) -> Iterator[OldServer]:
    """Run TorchServe with two models, one of them in two versions, and have it write a snapshot of what it serves."""
    with StockTorchServe(home / "torchserve", tokens=False, snapshots=True) as server:
        archive(server.store, "sentiment", SENTIMENT, file="sentiment.mar")
        _register(server, "sentiment.mar", batch_size="4", max_batch_delay="20")
        for version in ("1.0", "2.0"):
            file = archive(server.store, "shout", SHOUT.replace("MARK", "!" * int(version[0])), version=version)
            _register(server, file.name)
        management = server.addresses["management"]
        answer = httpx.put(f"{management}/models/shout/2.0/set-default", timeout=30, trust_env=False)
        assert answer.status_code == 200, answer.text
        lines: list[dict[str, Any]] = [{"path": "/predictions/sentiment", "body": {"text": text}} for text in TEXTS]
        lines += [{"path": "/predictions/shout", "body": text} for text in TEXTS[:3]]
        lines += [
            {"path": "/predictions/shout/1.0", "body": "hello"},
            {"path": "/predictions/sentiment", "body": {"words": "no text"}},
            {"method": "GET", "path": "/ping"},
        ]
        requests = write_requests(home / "requests.jsonl", lines)
        yield OldServer(server.work, server.addresses["inference"], requests)


@contextmanager
def old_kserve(home: Path) -> Iterator[OldServer]:
    """Run a TorchServe as KServe's image does, behind a router that goes by the host, as KServe's gateway does."""
    host = "reviews.shop.example.com"
    with _behind_router(home / "kserve", "kserve", r"/v1/models/([^/:]+):predict", host) as (url, store, config):
        lines = [
            {"path": "/v1/models/sentiment:predict", "headers": {"Host": host}, "body": {"instances": [{"text": text}]}}
            for text in TEXTS
        ]
        lines.append({**lines[0], "body": {"instances": [{"text": text} for text in TEXTS[:3]]}})
        volume = home / "volume" / "reviews"
        (volume / "config").mkdir(parents=True)
        (volume / "config" / "config.properties").write_text(config)
        shutil.copytree(store, volume / "model-store")
        source = home / "reviews.yaml"
        source.write_text(INFERENCE_SERVICE.replace("STORE", str(volume)))
        yield OldServer(source, url, write_requests(home / "requests.jsonl", lines))


@contextmanager
def old_modelmesh(home: Path) -> Iterator[OldServer]:
    """Run a TorchServe as ModelMesh's runtime does, behind a proxy that gives v2 over REST."""
    with _behind_router(home / "modelmesh", "kservev2", r"/v2/models/([^/]+)/infer", None) as (url, store, _):
        bucket = home / "bucket" / "reviews"
        bucket.mkdir(parents=True)
        (bucket / "sentiment.mar").write_bytes((store / "sentiment.mar").read_bytes())
        tensor = {"name": "text", "shape": [1], "datatype": "BYTES"}
        lines = [
            {"path": "/v2/models/reviews/infer", "body": {"inputs": [{**tensor, "data": [text]}]}} for text in TEXTS
        ]
        source = home / "manifests"
        source.mkdir()
        (source / "predictor.yaml").write_text(PREDICTOR)
        (source / "storage-config.yaml").write_text(STORAGE_CONFIG)
        arguments = ("--storage", f"s3://models={home / 'bucket'}")
        yield OldServer(source, url, write_requests(home / "requests.jsonl", lines), arguments)


@contextmanager
def _behind_router(home: Path, envelope: str, path: str, host: str | None) -> Iterator[tuple[str, Path, str]]:
    """Run TorchServe with an envelope of KServe's, and before it what routes and renames paths in a cluster.

    Yields the router's address, the model store, and what KServe would have in config.properties.
    """
    with StockTorchServe(home, tokens=False, service_envelope=envelope) as server:
        # KServe's envelope of v2 makes tensors of numbers alone.
        archive(server.store, "sentiment", SCORE if envelope == "kservev2" else SENTIMENT, file="sentiment.mar")
        _register(server, "sentiment.mar")
        router = Router(server.addresses["inference"], re.compile(path), host)
        threading.Thread(target=router.serve_forever, args=(0.05,), daemon=True).start()
        model = {"defaultVersion": True, "marName": "sentiment.mar", "minWorkers": 1, "maxWorkers": 1, "batchSize": 1,
                 "maxBatchDelay": 10, "responseTimeout": 120}  # fmt: skip
        snapshot = {"name": "startup.cfg", "modelCount": 1, "models": {"sentiment": {"1.0": model}}}
        config = (
            "inference_address=http://0.0.0.0:8085\nmanagement_address=http://0.0.0.0:8085\nenable_envvars_config=true\n"
            f"model_store=/mnt/models/model-store\nmodel_snapshot={json.dumps(snapshot)}\n"
        )
        try:
            yield f"http://127.0.0.1:{router.server_address[1]}", server.store, config
        finally:
            router.shutdown()
            router.server_close()
