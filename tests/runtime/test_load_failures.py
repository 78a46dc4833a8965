"""Why a handler cannot be loaded: a real TorchServe's worker says the first cause, where it is and what to do."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from importlib.util import find_spec

import pytest

from marway.wire import model_log
from marway.wire.runtime import LOGS
from support.runtime import Runtime
from support.up import wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(200)]

FINE = "class H:\n    def initialize(self, context): ...\n    def handle(self, data, context): return data\n"
PACKAGE = "a package is named in requirements.txt (--requirements-file)"
IN_INITIALIZE = (
    "class H:\n    def initialize(self, context):\n        {}\n    def handle(self, data, context): return data\n"
)


def reason(runtime: Runtime, name: str, files: Mapping[str, str], **model: str) -> str:
    """Have TorchServe load an archive of these files, which it cannot, and return the reason that is logged."""
    described = {"modelName": name, "modelVersion": "1.0", "handler": "handler.py", **model}
    with zipfile.ZipFile(runtime.info.model_store / f"{name}.mar", "w") as archive:
        archive.writestr("MAR-INF/MANIFEST.json", json.dumps({"runtime": "python", "model": described}))
        for file, text in files.items():
            archive.writestr(file, text)
    query = {"url": f"{name}.mar", "model_name": name, "initial_workers": "1", "synchronous": "true"}
    answer = runtime.client.post(f"{runtime.info.addresses['management']}/models", params=query)
    assert answer.status_code >= 400, answer.text
    runtime.client.delete(f"{runtime.info.addresses['management']}/models/{name}")

    def said() -> str | None:
        return model_log.last_error(model_log.read(runtime.directory / LOGS, [f"{name}_1.0"]))

    wait_until(lambda: said() is not None, timeout_s=10, what="a reason in models.log")
    found = said()
    assert found is not None
    assert "\n" not in found
    return found


@pytest.mark.parametrize(
    ("files", "model", "said"),
    [
        pytest.param(
            {"handler.py": f"import os\n\nimport nothing_there\n{FINE}"},
            {},
            ("ModuleNotFoundError: No module named 'nothing_there' (handler.py line 3): ", PACKAGE),
            id="missing-import",
        ),
        pytest.param(
            {"handler.py": f"import helper\n{FINE}", "helper.py": "import json\nfrom nothing_there.deep import x\n"},
            {},
            ("ModuleNotFoundError: No module named 'nothing_there' (helper.py line 2): ", PACKAGE),
            id="missing-import-of-a-module",
        ),
        pytest.param(
            {"handler.py": f"import json\nfrom json import nothing_there\n{FINE}"},
            {},
            ("ImportError: cannot import name 'nothing_there' from 'json'", "(handler.py line 2): another version"),
            id="other-version",
        ),
        pytest.param(
            {"handler.py": f"x = 1\ndef broken(:\n{FINE}"},
            {},
            ("SyntaxError: invalid syntax (handler.py line 2): correct the file for the Python of the pods",),
            id="syntax",
        ),
        pytest.param(
            {"handler.py": f"import helper\n{FINE}", "helper.py": "\n\n  x = 1\n"},
            {},
            ("IndentationError: unexpected indent (helper.py line 3): correct the file",),
            id="indentation-of-a-module",
        ),
        pytest.param(
            {"handler.py": f"{FINE}\nclass Other:\n    pass\n"},
            {},
            ("ValueError: Expected only one class", "handler.py must define one class, or a function `handle`"),
            id="two-classes",
        ),
        pytest.param(
            {"handler.py": "class H:\n    def initialize(self, context): ...\n"},
            {},
            ("ValueError: Expect handle method in class", "give the class a method `handle(self, data, context)`"),
            id="no-method",
        ),
        pytest.param(
            {"other.py": FINE},
            {},
            ("No module named 'handler': the archive has no file handler.py, and TorchServe no handler of that name",),
            id="no-handler",
        ),
        pytest.param(
            {"handler.py": IN_INITIALIZE.format("open(context.system_properties['model_dir'] + '/weights.pt')")},
            {},
            ("No such file or directory: 'weights.pt' (handler.py line 3): is it in the archive? Weights come in by",),
            id="missing-weights",
        ),
        pytest.param(
            {"handler.py": IN_INITIALIZE.format("import ctypes; ctypes.CDLL('libnothing_there.so.1')")},
            {},
            ("OSError: libnothing_there.so.1: cannot open shared object file", "install it in the image of the pod's"),
            id="missing-library",
        ),
        pytest.param(
            {"handler.py": IN_INITIALIZE.format("int('many')")},
            {},
            ("ValueError: invalid literal for int() with base 10: 'many' (handler.py line 3)",),
            id="initialize-raises",
        ),
        pytest.param(
            {"handler.py": IN_INITIALIZE.format("raise RuntimeError('two\\nlines')")},
            {},
            ("RuntimeError: two lines (handler.py line 3)",),
            id="runtime-error",
        ),
        pytest.param(
            {
                "handler.py": "try:\n    import nothing_there\nexcept ImportError as exc:\n"
                f"    raise RuntimeError('no set-up') from exc\n{FINE}"
            },
            {},
            (
                "ModuleNotFoundError: No module named 'nothing_there' (handler.py line 2)",
                "led to RuntimeError: no set-up",
            ),
            id="cause",
        ),
        pytest.param(
            {"more.txt": ""},
            {"handler": "image_classifier"},
            ("ModuleNotFoundError: No module named 'torchvision': ", PACKAGE),
            id="torchserves-own-handler",
            marks=pytest.mark.skipif(find_spec("torchvision") is not None, reason="torchvision is installed"),
        ),
        pytest.param(
            {"handler.py": "import sys\nsys.exit(3)\n"},
            {},
            ("SystemExit: 3 (handler.py line 2): the handler ended its process while it was loaded",),
            id="exit",
        ),
        pytest.param(
            {"handler.py": FINE, "requirements.txt": "nothing-there==1.0\n"},
            {"requirementsFile": "requirements.txt"},
            ("requirements.txt is not met here: nothing-there==1.0 (not installed): publish it without --no-lock",),
            id="requirements",
        ),
    ],
)
def test_the_first_cause_is_said(
    runtime: Runtime,
    request: pytest.FixtureRequest,
    files: Mapping[str, str],
    model: Mapping[str, str],
    said: tuple[str, ...],
) -> None:
    """Whatever stops a handler from being loaded: one line, with the file and line of the archive and what to do."""
    found = reason(runtime, request.node.callspec.id, files, **model)
    assert [text for text in said if text not in found] == [], found
    assert "ts.torch_handler" not in found


def test_a_failed_load_has_one_traceback(runtime: Runtime) -> None:
    """The traceback is the handler's own and is written once, in the record that has the reason."""
    reason(runtime, "traced", {"handler.py": f"import nothing_there\n{FINE}"})
    lines = model_log.read(runtime.directory / LOGS, ["traced_1.0"])
    (told,) = [line for line in lines if line.traceback is not None]
    assert told.traceback is not None
    assert told.traceback.endswith("ModuleNotFoundError: No module named 'nothing_there'")
    assert (told.level, told.model, told.version, told.reason is not None) == ("error", "traced", "1.0", True)
