"""KServe's and ModelMesh's objects, as YAML, and the files that they name."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from marway.errors import InvalidInput
from marway_archiver.adopt.found import Found, FoundModel
from marway_archiver.adopt.sources.kinds import read_source
from marway_archiver.adopt.sources.kube.objects import group_objects
from marway_archiver.adopt.sources.kube.storage import account_keys, storage_config
from marway_archiver.adopt.sources.options import Options

Mar = Callable[..., Path]
TORCHSERVE = """\
apiVersion: "serving.kserve.io/v1beta1"
kind: "InferenceService"
metadata:
  name: "torchserve"
  namespace: shop
  creationTimestamp: 2024-05-01T10:00:00Z
  managedFields: [{manager: kubectl}]
  annotations:
    autoscaling.knative.dev/target: "1"
spec:
  predictor:
    minReplicas: 2
    maxReplicas: 3
    timeout: 30
    logger: {mode: all, url: "http://sink"}
    batcher: {maxBatchSize: 16, maxLatency: 500}
    CANARY
    serviceAccountName: s3-read-only
    pytorch:
      protocolVersion: PROTOCOL
      storageUri: pvc://claim/STORE
      image: pytorch/torchserve-kfs:0.12.0
      args: ["--foreground"]
      env: [{name: API_TOKEN, value: word}]
      resources: {limits: {cpu: 2000m}}
      somethingNew: 1
status:
  url: http://torchserve.shop.example.com
"""
PREDICTOR = """\
apiVersion: serving.kserve.io/v1alpha1
kind: Predictor
metadata:
  name: NAME
spec:
  modelType:
    name: FORMAT
  path: PATH
  storage:
    s3:
      secretKey: localMinIO
      bucket: models
"""


def service(canary: str = "", store: str = "one", protocol: str = "v1") -> str:
    return TORCHSERVE.replace("CANARY", canary).replace("STORE", store).replace("PROTOCOL", protocol)


def kserve_store(directory: Path, mar: Mar) -> None:
    """Lay a store out as KServe's TorchServe reads it."""
    mar(directory / "model-store", "mnist")
    (directory / "config").mkdir()
    models = {"mnist": {"1.0": {"defaultVersion": True, "marName": "mnist.mar", "minWorkers": 1, "maxWorkers": 5}}}
    snapshot = json.dumps({"name": "startup.cfg", "modelCount": 1, "models": models})
    (directory / "config" / "config.properties").write_text(
        f"inference_address=http://0.0.0.0:8085\nmodel_store=/mnt/models/model-store\nmodel_snapshot={snapshot}\n"
    )


def read(tmp_path: Path, options: Options, yaml: str, **places: Path) -> Found:
    file = tmp_path / "services.yaml"
    file.write_text(yaml)
    storage = {f"{scheme}://{'models' if scheme == 's3' else 'claim'}": path for scheme, path in places.items()}
    return read_source(file, replace(options, storage=storage))


def predictor(name: str, kind: str, path: str) -> str:
    return PREDICTOR.replace("NAME", name).replace("FORMAT", kind).replace("PATH", path)


def outcomes(model: FoundModel) -> dict[str, str]:
    return {each.name: each.outcome for each in model.settings}


def test_a_torchserve_service_gives_the_models_of_its_store(tmp_path: Path, mar: Mar, options: Options) -> None:
    """Archives, workers and labels are those of its configuration; replicas, time-out, logger and batcher its own."""
    kserve_store(tmp_path / "one", mar)
    found = read(tmp_path, options, service(), pvc=tmp_path)
    (model,) = found.models
    assert (found.kind, model.reference, model.labels, model.problem) == ("kserve", "mnist/1.0", ("PROD",), None)
    assert model.serving.model_dump(exclude_unset=True) == {
        "min_workers": 1, "max_workers": 5, "pods": 2, "predict_timeout_s": 30.0, "max_batch_rows": 16,
        "observe": "bodies",
    }  # fmt: skip
    endpoint = model.endpoint
    assert (endpoint.protocol, endpoint.model, endpoint.version) == ("v1", "mnist", None)
    assert (endpoint.url, endpoint.host) == ("http://torchserve.shop.example.com", "torchserve.shop.example.com")
    said = {each.name: each for each in model.settings}
    assert said["spec.predictor.pytorch.env[API_TOKEN]"].value == "(hidden)"
    assert said["spec.predictor.minReplicas"].becomes.startswith("pods 2")
    assert said["spec.predictor.pytorch.somethingNew"].outcome == "none"
    assert said["spec.predictor.timeout"].outcome == "kept"
    assert not [name for name in said if "managedFields" in name or "creationTimestamp" in name or "status" in name]
    assert {each.name for each in found.settings} == {"inference_address", "model_store", "model_snapshot"}


def test_a_canary_gets_a_label_of_its_own(tmp_path: Path, mar: Mar, options: Options) -> None:
    """Of two revisions the first keeps the label; the second gets CANARY, and a version of its own."""
    kserve_store(tmp_path / "one", mar)
    kserve_store(tmp_path / "two", mar)
    yaml = f"{service()}---\n{service('canaryTrafficPercent: 20', 'two', 'v2')}"
    first, second = read(tmp_path, options, yaml, pvc=tmp_path).models
    assert (first.reference, first.labels) == ("mnist/1.0", ("PROD",))
    assert (second.reference, second.labels, second.endpoint.protocol) == ("mnist/1.0-r2", ("CANARY",), "v2")
    canary = next(each for each in second.settings if each.name.endswith("canaryTrafficPercent"))
    assert "`marway rollout start mnist 1.0" in canary.becomes
    (alone,) = read(tmp_path, options, service("canaryTrafficPercent: 20"), pvc=tmp_path).models
    assert any("80 of 100 requests went to the revision before" in each for each in alone.warnings)


@pytest.mark.parametrize(
    ("model", "implementation", "warned"),
    [
        ("modelFormat: {name: sklearn}, protocolVersion: v2", "mlserver_sklearn.SKLearnModel", False),
        ("modelFormat: {name: xgboost}", "mlserver_xgboost.XGBoostModel", True),
        ("modelFormat: {name: mlflow}, runtime: kserve-mlserver", "mlserver_mlflow.MLflowRuntime", False),
        ("modelFormat: {name: sklearn}, runtime: ours", "mlserver_sklearn.SKLearnModel", False),
    ],
)
def test_files_without_settings_get_mlservers(
    tmp_path: Path, options: Options, model: str, implementation: str, *, warned: bool
) -> None:
    """A model of files alone becomes a bundle for MLServer, with the runtime that KServe would choose."""
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "model.bin").write_text("x")
    yaml = (
        "apiVersion: serving.kserve.io/v1alpha1\nkind: ServingRuntime\nmetadata: {name: ours}\n"
        "spec: {containers: [{name: kserve-container, image: docker.io/seldonio/mlserver:1.5.0}]}\n---\n"
        "apiVersion: serving.kserve.io/v1beta1\nkind: InferenceService\nmetadata: {name: iris}\n"
        f"spec: {{predictor: {{model: {{{model}, storageUri: 'file://{tmp_path}/files'}}}}}}\n"
    )
    found = read(tmp_path, options, yaml)
    (service,) = found.models
    assert (service.problem, service.reference, service.backend) == (None, "iris/1", "open-inference")
    assert json.loads(service.add_files["model-settings.json"]) == {
        "name": "iris", "implementation": implementation, "parameters": {"uri": "./model.bin"},
    }  # fmt: skip
    assert any("answers are to be compared" in each for each in service.warnings) == warned
    assert "ServingRuntime ours spec.containers[kserve-container].image" in {each.name for each in found.settings}


def test_servers_of_other_layouts_are_told_by_their_format(tmp_path: Path, options: Options) -> None:
    """TensorFlow's highest version, OpenVINO's directory and a repository of Triton's each keep their layout."""
    for path in ("flowers/1", "flowers/2", "ov/1", "repo/resnet/1"):
        (tmp_path / path).mkdir(parents=True)
        (tmp_path / path / "model.onnx").write_text("x")
    yaml = "\n---\n".join(
        "apiVersion: serving.kserve.io/v1beta1\nkind: InferenceService\n"
        f"metadata: {{name: {name}}}\nspec: {{predictor: {{{kind}: {{storageUri: 'file://{tmp_path}/{path}'}}}}}}"
        for name, kind, path in (
            ("flowers", "tensorflow", "flowers"),
            ("t", "triton", "repo"),
            ("o", "onnx", "repo/no"),
        )
    )
    found = read(tmp_path, options, yaml)
    flowers, resnet, gone = found.models
    assert (flowers.reference, flowers.backend, flowers.leave_out) == ("flowers/2", "tensorflow-serving", ("1",))
    assert (resnet.reference, resnet.endpoint.protocol) == ("resnet/1", "v2")
    assert "say where its files are with --storage" in (gone.problem or "")


@pytest.mark.parametrize(
    ("predictor_yaml", "words"),
    [
        ("containers: [{name: c, image: me/own}]", "runs a container of its own"),
        ("model: {modelFormat: {name: pmml}, storageUri: 'file:///x'}", "no backend of Marway's serves the format"),
        ("model: {modelFormat: {name: sklearn}, runtime: odd, storageUri: 'pvc://claim'}", "names the runtime 'odd'"),
        ("model: {storageUri: 'file:///x'}", "without modelFormat.name"),
        ("model: {modelFormat: {name: pytorch}}", "has no storageUri"),
        ("pytorch: {storageUri: 'file:///etc'}", "is not below"),
        ("pytorch: {storageUri: 'pvc://claim/../..'}", "leads out of"),
        ("pytorch: {storageUri: 'gs://bucket/x'}", "--storage gs://bucket=DIR"),
        ("pytorch: {storageUri: 's3://bucket/../x'}", "cannot be fetched"),
        ("pytorch: {storageUri: 's3://../x'}", "is no bucket name"),
        ("{}", "has no predictor that is known"),
    ],
)
def test_services_that_cannot_be_taken_say_why(
    tmp_path: Path, options: Options, predictor_yaml: str, words: str
) -> None:
    """One sentence says why a service is not taken over, and what to do; its settings are told all the same."""
    predictor_yaml = predictor_yaml if predictor_yaml == "{}" else f"{{{predictor_yaml}}}"
    yaml = (
        "apiVersion: serving.kserve.io/v1beta1\nkind: InferenceService\nmetadata: {name: iris}\n"
        f"spec: {{predictor: {predictor_yaml}}}\n"
    )
    (tmp_path / "claim").mkdir()
    (model,) = read(tmp_path, options, yaml, pvc=tmp_path / "claim").models
    assert words in (model.problem or "")
    assert model.settings


@pytest.mark.parametrize(
    ("yaml", "words"),
    [
        ("serving.kserve.io: !!python/object/apply:os.system ['true']", "is not accepted"),
        (
            "a: &a [x,x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b]\n"
            "d: &d [*c,*c,*c,*c,*c,*c,*c]\ne: [*d,*d,*d,*d,*d,*d,*d,*d,*d,*d,*d,*d,*d,*d,*d,*d]\n"
            "x: serving.kserve.io\n",
            "expand to more than",
        ),
        ("x: serving.kserve.io\na: &a [*a]\n", "holds itself"),
        ("x: serving.kserve.io\n" + "a: [" * 3 + "[" * 40 + "\n", "is nested deeper"),
        ("x: serving.kserve.io\nx: 2\n", "is given twice"),
        ("x: serving.kserve.io\n", "no object of Kubernetes begins here"),
        ("x: serving.kserve.io\n" + "#" * (1024 * 1024 + 1), "at most 1048576 are accepted"),
        ("apiVersion: serving.kserve.io/v1beta1\nkind: TrainedModel\nmetadata: {name: a}\n", "no source that is known"),
    ],
)
def test_hostile_yaml_is_refused(tmp_path: Path, options: Options, yaml: str, words: str) -> None:
    """Tags, bombs, loops, depth, doubled keys and size are refused before anything is made of them."""
    file = tmp_path / "x.yaml"
    file.write_text(yaml)
    with pytest.raises(InvalidInput) as caught:
        read_source(file, options)
    assert words in caught.value.message


def test_a_claim_of_this_machine_is_followed_below_the_yaml_alone(tmp_path: Path, mar: Mar, options: Options) -> None:
    """A volume whose object names a directory beside the YAML is read there; one elsewhere has to be said."""
    kserve_store(tmp_path / "one", mar)
    volume = (
        "---\napiVersion: v1\nkind: PersistentVolume\nmetadata: {name: v}\nspec: {hostPath: {path: 'PATH'}}\n"
        "---\napiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {name: claim}\nspec: {volumeName: v}\n"
    )
    (model,) = read(tmp_path, options, service() + volume.replace("PATH", str(tmp_path))).models
    assert model.problem is None
    (model,) = read(tmp_path, options, service() + volume.replace("PATH", "/")).models
    assert "--storage pvc://claim=DIR" in (model.problem or "")


def test_a_list_of_kubectl_is_read_as_its_items(tmp_path: Path, mar: Mar, options: Options) -> None:
    """`kubectl get -o json` gives one List, whose items are read; other files of a directory do not matter."""
    import yaml

    kserve_store(tmp_path / "one", mar)
    item = yaml.safe_load(service().replace("2024-05-01T10:00:00Z", "'2024-05-01T10:00:00Z'"))
    file = tmp_path / "all.json"
    file.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": [item]}))
    found = read_source(file, replace(options, storage={"pvc://claim": tmp_path}))
    assert [each.reference for each in found.models] == ["mnist/1.0"]
    file.rename(tmp_path / "one" / "all.json")
    (tmp_path / "one" / "vocabulary.json").write_text("{" + " " * 1024 * 1024 + "}")
    (tmp_path / "one" / "values.yaml").write_text("image: !tag x\n")
    found = read_source(tmp_path / "one", replace(options, storage={"pvc://claim": tmp_path}), kind="kserve")
    assert [each.reference for each in found.models] == ["mnist/1.0"]


def test_predictors_are_laid_out_as_modelmesh_does(tmp_path: Path, mar: Mar, options: Options) -> None:
    """Files become Triton's version 1 or MLServer's model, each with a configuration; own layouts stay."""
    store = tmp_path / "store"
    mar(store / "mar", "mnist")
    for name in (
        "onnx/mnist-8.onnx", "svm/digits.joblib", "svm/other.joblib", "native/config.pbtxt", "native/3/model.pt",
        "ov/model.xml", "tf/2/saved/saved_model.pb", "keras/model.h5",
    ):  # fmt: skip
        (store / name).parent.mkdir(parents=True, exist_ok=True)
        (store / name).write_text("" if name.endswith("pbtxt") else name)
    (store / "schema.json").write_text(
        '{"inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 28]}], '
        '"outputs": [{"name": "y", "datatype": "BYTES", "shape": [1]}]}'
    )
    with_schema = predictor("mnist-onnx", "onnx", "onnx/mnist-8.onnx").replace(
        "  storage:", "  schemaPath: schema.json\n  storage:"
    )
    others = (
        ("Digits_1", "sklearn", "svm/digits.joblib"), ("mar", "pytorch-mar", "mar/mnist.mar"),
        ("native", "pytorch", "native"), ("ov", "openvino_ir", "ov"), ("tf", "tensorflow", "tf"),
        ("keras", "keras", "keras/model.h5"), ("odd", "mllib", "svm"), ("gone", "onnx", "onnx/none.onnx"),
    )  # fmt: skip
    yaml = "---\n".join([with_schema, *(predictor(*each) for each in others)])
    found = read(tmp_path, options, yaml, s3=store)
    models = {each.name: each for each in found.models}
    assert found.kind == "modelmesh"
    onnx = models["mnist-onnx"]
    assert onnx.directory is not None
    assert (onnx.directory / "1" / "model.onnx").read_text() == "onnx/mnist-8.onnx"
    assert onnx.add_files["config.pbtxt"].decode() == (
        'backend: "onnxruntime"\n'
        'input [{ name: "x" data_type: TYPE_FP32 dims: [ -1, 28 ] }]\n'
        'output [{ name: "y" data_type: TYPE_STRING dims: [ 1 ] }]\n'
    )
    assert outcomes(onnx)["spec.schemaPath"] == "kept"
    digits = models["Digits_1"]
    assert digits.leave_out == ("other.joblib",)
    assert json.loads(digits.add_files["model-settings.json"])["parameters"] == {"uri": "./digits.joblib"}
    assert (models["mar"].archive, models["mar"].version) == (store / "mar" / "mnist.mar", "1.0")
    assert (models["native"].version, models["native"].directory) == ("3", store / "native")
    assert models["ov"].directory is not None
    assert (models["ov"].directory / "1" / "model.xml").is_file()
    assert models["tf"].directory is not None
    assert (models["tf"].directory / "2" / "model.savedmodel" / "saved_model.pb").is_file()
    assert "convert it yourself" in (models["keras"].problem or "")
    assert "no backend of Marway's serves the type 'mllib'" in (models["odd"].problem or "")
    assert "is not there in" in (models["gone"].problem or "")
    assert {each.endpoint.protocol for each in found.models} == {"v2"}


def test_services_in_modelmeshs_mode_are_its_own(tmp_path: Path, mar: Mar, options: Options) -> None:
    """An `InferenceService` with its annotation is ModelMesh's, with `storage` or with `storageUri`."""
    mar(tmp_path / "mar", "mnist")
    head = (
        "apiVersion: serving.kserve.io/v1beta1\nkind: InferenceService\nmetadata:\n  name: NAME\n  annotations:\n"
        "    serving.kserve.io/deploymentMode: ModelMesh\n"
    )
    storage = "storage: {key: localMinIO, path: mar/mnist.mar, parameters: {bucket: models}}"
    uri = "storageUri: 's3://models/mar/mnist.mar'"
    yaml = "---\n".join(
        f"{head.replace('NAME', name)}spec: {{predictor: {{model: {{modelFormat: {{name: pytorch-mar}}, {said}}}}}}}\n"
        for name, said in (("one", storage), ("two", uri))
    )
    found = read(tmp_path, options, yaml, s3=tmp_path)
    assert [(each.reference, each.problem) for each in found.models] == [("one/1.0", None), ("two/1.0", None)]


def test_keys_of_a_storage_come_from_its_secrets(tmp_path: Path) -> None:
    """KServe's come over the service account, ModelMesh's from the Secret of storages, plain or in base64."""
    encoded = base64.b64encode(b"word").decode()
    config = {"type": "s3", "access_key_id": "k", "secret_access_key": "w", "endpoint_url": "http://m:9000",
              "default_bucket": "b", "region": "r"}  # fmt: skip
    objects = [
        {"kind": "ServiceAccount", "metadata": {"name": "default"}, "secrets": [{"name": "other"}, {"name": "s3"}]},
        {"kind": "Secret", "metadata": {"name": "other"}, "data": {"x": encoded}},
        {
            "kind": "Secret",
            "metadata": {
                "name": "s3",
                "annotations": {"serving.kserve.io/s3-endpoint": "m:9000", "serving.kserve.io/s3-usehttps": "0"},
            },
            "stringData": {"AWS_ACCESS_KEY_ID": "key"},
            "data": {"AWS_SECRET_ACCESS_KEY": encoded},
        },
        {
            "kind": "Secret",
            "metadata": {"name": "storage-config"},
            "stringData": {"localMinIO": json.dumps(config), "gcs": '{"type": "gcs", "bucket": "g"}', "bad": "{"},
        },
    ]
    file = tmp_path / "objects.json"
    file.write_text(
        json.dumps({"apiVersion": "v1", "kind": "List", "items": [{"apiVersion": "v1", **o} for o in objects]})
    )
    read_objects = group_objects(file)
    keys = account_keys("", "", read_objects)
    assert keys is not None
    assert (keys.access_key, keys.secret_key, keys.endpoint) == ("key", "word", "http://m:9000")
    assert "word" not in repr(keys)
    assert account_keys("none", "", read_objects) is None
    keys, bucket = storage_config("localMinIO", read_objects)
    assert keys is not None
    assert (keys.endpoint, keys.region, bucket) == ("http://m:9000", "r", "b")
    assert storage_config("gcs", read_objects) == (None, "g")
    for key, words in (("none", "has no storage 'none': it has bad, gcs, localMinIO"), ("bad", "is not JSON")):
        with pytest.raises(InvalidInput, match=words):
            storage_config(key, read_objects)
