"""Files of a source that lie in S3, with the keys that the source itself says."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from marway_archiver.adopt.sources.kinds import read_source
from marway_archiver.adopt.sources.options import Options
from support.seaweed import S3Server

Mar = Callable[..., Path]


@pytest.mark.extended  # starts an S3 server; where keys come from, and what is refused, test_adopt_kube.py shows
def test_files_are_fetched_with_the_keys_of_the_source(
    tmp_path: Path, mar: Mar, options: Options, s3_server: S3Server
) -> None:
    """KServe's account and ModelMesh's Secret each reach a real S3, without a variable of the machine's own."""
    client = s3_server.client()
    archive = mar(tmp_path, "mnist")
    client.upload_file(str(archive), s3_server.bucket, "kserve/one/model-store/mnist.mar")
    client.upload_file(str(archive), s3_server.bucket, "kserve/one-more/model-store/mnist.mar")
    client.put_object(
        Bucket=s3_server.bucket, Key="kserve/one/config/config.properties", Body=b"load_models=mnist.mar\n"
    )
    config = {
        "type": "s3", "access_key_id": s3_server.access_key, "secret_access_key": s3_server.secret_key,
        "endpoint_url": s3_server.endpoint, "default_bucket": s3_server.bucket, "region": "us-south",
    }  # fmt: skip
    (tmp_path / "yaml").mkdir()
    (tmp_path / "yaml" / "mesh.yaml").write_text(
        f"""\
apiVersion: v1
kind: Secret
metadata: {{name: storage-config}}
stringData:
  localMinIO: '{json.dumps(config)}'
---
apiVersion: serving.kserve.io/v1alpha1
kind: Predictor
metadata: {{name: digits}}
spec:
  modelType: {{name: pytorch-mar}}
  path: kserve/one/model-store/mnist.mar
  storage: {{s3: {{secretKey: localMinIO}}}}
---
apiVersion: serving.kserve.io/v1alpha1
kind: Predictor
metadata: {{name: gone}}
spec:
  modelType: {{name: pytorch-mar}}
  path: kserve/two
  storage: {{s3: {{secretKey: localMinIO}}}}
"""
    )
    (tmp_path / "yaml" / "kserve.yaml").write_text(
        f"""\
apiVersion: v1
kind: Secret
metadata:
  name: s3
  annotations:
    serving.kserve.io/s3-endpoint: {s3_server.endpoint.removeprefix("http://")}
    serving.kserve.io/s3-usehttps: "0"
stringData: {{AWS_ACCESS_KEY_ID: {s3_server.access_key}, AWS_SECRET_ACCESS_KEY: {s3_server.secret_key}}}
---
apiVersion: v1
kind: ServiceAccount
metadata: {{name: sa}}
secrets: [{{name: s3}}]
---
apiVersion: serving.kserve.io/v1beta1
kind: InferenceService
metadata: {{name: torchserve}}
spec:
  predictor:
    serviceAccountName: sa
    pytorch: {{storageUri: "s3://{s3_server.bucket}/kserve/one"}}
"""
    )
    digits, gone = read_source(tmp_path / "yaml" / "mesh.yaml", options).models
    assert (digits.reference, digits.problem) == ("digits/1.0", None)
    assert digits.archive is not None
    assert digits.archive.read_bytes() == archive.read_bytes()
    assert "no object begins like that" in (gone.problem or "")
    (mnist,) = read_source(tmp_path / "yaml" / "kserve.yaml", options).models
    assert (mnist.reference, mnist.problem) == ("mnist/1.0", None)
    assert not (options.scratch / "s3" / s3_server.bucket / "kserve" / "one-more").exists()
