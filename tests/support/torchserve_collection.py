"""What TorchServe's own collection of management requests asks, in its order: 82 of them, and what it expects.

After `test/postman/management_data.json` of pytorch/serve (Apache-2.0), which its Postman and its gRPC tests both read.
Models come from `{url}`, for which a test gives a place that it can reach.
"""

from __future__ import annotations

from typing import Final, NamedTuple

__all__ = ["COLLECTION", "DIFFERENT", "MODELS", "Asked"]

MODELS: Final = ("squeezenet1_1", "mnist", "densenet161", "resnet-152-batch", "resnet-18")
"""The archives that it registers."""


class Asked(NamedTuple):
    """One request: what it is about, its method and path, and the status that is expected over REST and gRPC."""

    about: str
    method: str
    path: str
    status: int = 200
    code: int = 0


_SHORT: Final = {
    "{+s}": "{+}squeezenet1_1.mar&model_name=squeezenet1_1",
    "{+r}": "{+}resnet-152-batch.mar&model_name=resnet152",
    "{+}": "models?url={url}",
}
_LINES: Final = """
register squeezenet|POST|{+s}
register mnist|POST|{+}mnist.mar&model_name=mnist
register densenet|POST|{+}densenet161.mar&model_name=densenet161
register densenet again|POST|{+}densenet161.mar&model_name=densenet161|500|13
unregister densenet|DELETE|models/densenet161
register without url|POST|models|400|3
unregister mnist|DELETE|models/mnist
register mnist with a wrong handler|POST|{+}mnist.mar&model_name=mnist&handler=invalidHandler
unregister mnist with a wrong handler|DELETE|models/mnist
register mnist with a wrong handler again|POST|{+}mnist.mar&model_name=mnist&handler=invalidHandler
scale a wrong handler, synchronous|PUT|models/mnist?min_worker=1&synchronous=true|500|13
unregister mnist with a wrong handler again|DELETE|models/mnist
describe all versions|GET|models/squeezenet1_1/all
describe a version|GET|models/squeezenet1_1/1.0
describe|GET|models/squeezenet1_1
unregister|DELETE|models/squeezenet1_1
register with a wrong runtime|POST|{+s}&runtime=python4|400|3
list|GET|models?limit=&next_page_token=
register before scaling|POST|{+s}
scale|PUT|models/squeezenet1_1?min_worker=1|202
scale, synchronous|PUT|models/squeezenet1_1?min_worker=1&synchronous=true
scale a version|PUT|models/squeezenet1_1/1.0?min_worker=1&synchronous=true
scale a version that is not there|PUT|models/squeezenet1_1/0.0?min_worker=1&synchronous=true|404|5
scale with a GPU|PUT|models/squeezenet1_1?min_worker=1&number_gpu=1|202
set default|PUT|models/squeezenet1_1/1.0/set-default
set default, no such version|PUT|models/squeezenet1_1/0.0/set-default|404|5
set default, no such model|PUT|models/squeezenet0_1/1.0/set-default|404|5
unregister after scaling|DELETE|models/squeezenet1_1
register with a handler|POST|{+s}&handler=serve/ts/torch_handler/image_classifier.py:handle
unregister with a handler|DELETE|models/squeezenet1_1
register with workers and response_timeout 0|POST|{+s}&batch_size=3&initial_workers=3&response_timeout=0|500|13
register with response_timeout 0|POST|{+s}&response_timeout=0
unregister with response_timeout 0|DELETE|models/squeezenet1_1
register with batches|POST|{+r}&batch_size=2
unregister with batches|DELETE|models/resnet152
register with batch_size dd|POST|{+r}&batch_size=dd&initial_workers=1
unregister with batch_size dd|DELETE|models/resnet152
register with max_batch_delay junk|POST|{+r}&batch_size=2&initial_workers=1&max_batch_delay=junk
unregister with max_batch_delay junk|DELETE|models/resnet152
register with initial_workers -1|POST|{+s}&initial_workers=-1
unregister with initial_workers -1|DELETE|models/squeezenet1_1
register, synchronous|POST|{+}resnet-18.mar&model_name=resnet-18&synchronous=true
unregister, synchronous|DELETE|models/resnet-18
register with synchronous -1|POST|{+}resnet-18.mar&model_name=resnet-18&synchronous=-1
unregister with synchronous -1|DELETE|models/resnet-18
register, asynchronous|POST|{+}resnet-18.mar&model_name=resnet-18&synchronous=false
list with a limit|GET|models?limit=1
list with limit -1|GET|models?limit=-1
list, second page|GET|models?limit=1&next_page_token=1
list, page -1|GET|models?limit=1&next_page_token=-1
scale with 10 GPUs|PUT|models/resnet-18?number_gpu=10|202
scale with -1 GPUs|PUT|models/resnet-18?number_gpu=-1|202
scale to one, synchronous|PUT|models/resnet-18?min_worker=1&max_worker=1&synchronous=true
scale to one|PUT|models/resnet-18?min_worker=1&max_worker=1&synchronous=false|202
scale with timeout -1|PUT|models/resnet-18?timeout=-1|202
scale with timeout 0|PUT|models/resnet-18?timeout=0|202
register with an empty url|POST|models?url=&model_name=resnet-18|404|3
register with a url that leads nowhere|POST|{+}invalid-resnet-18.mar&model_name=invalid-resnet18|400|3
describe, no such model|GET|models/invalid_squeezenet1_1|404|5
describe, no such version|GET|models/squeezenet1_1/0.0|404|5
list beyond the end|GET|models?next_page_token=12
scale with synchronous Nan|PUT|models/resnet-18?min_worker=1&synchronous=Nan|202
scale to nan|PUT|models/resnet-18?min_worker=nan&synchronous=nan|202
scale without a number|PUT|models/resnet-18|202
scale, no such model|PUT|models/resnet181?min_worker=1|404|5
scale to fewer than the least|PUT|models/resnet-18?min_worker=2&max_worker=1|400|3
scale up|PUT|models/resnet-18?min_worker=1|202
scale to zero|PUT|models/resnet-18?min_worker=0|202
scale to -1|PUT|models/resnet-18?min_worker=-1|500|13
scale to at most -1|PUT|models/resnet-18?max_worker=-1|400|3
set default, no such model again|PUT|models/invalid_squeezenet1_1/1.0/set-default|404|5
unregister after all that|DELETE|models/resnet-18
unregister, no such version|DELETE|models/squeezenet1_1/0.0|404|5
register once more|POST|{+s}
unregister with synchronous true|DELETE|models/squeezenet1_1/?synchronous=true
register once more (2)|POST|{+s}
unregister with synchronous nan|DELETE|models/squeezenet1_1/?synchronous=nan
register once more (3)|POST|{+s}
unregister with timeout true|DELETE|models/squeezenet1_1/?timeout=true
register once more (4)|POST|{+s}
unregister with timeout true and synchronous -1|DELETE|models/squeezenet1_1/?timeout=true&synchronous=-1
unregister, no such model|DELETE|models/invalid_squeezenet1_1|404|5
"""


def _read(line: str) -> Asked:
    for short, long in _SHORT.items():
        line = line.replace(short, long)
    about, method, path, *expected = line.split("|")
    status, code = ([int(each) for each in expected] + [200, 0][len(expected) :]) if expected else (200, 0)
    return Asked(about, method, path, status, code)


COLLECTION: Final = tuple(_read(line) for line in _LINES.strip().splitlines())

DIFFERENT: Final[dict[str, tuple[int, str]]] = {
    "register densenet again": (
        409,
        "as TorchServe answers for a file of its store; 500 is that it downloads it twice",
    ),
    "register mnist with a wrong handler": (
        400,
        "a handler that is not in the archive is refused when it is published",
    ),
    "register mnist with a wrong handler again": (400, "as above"),
    "scale a wrong handler, synchronous": (200, "as it was not registered, the right one is scaled"),
    "register with a handler": (400, "as a wrong handler: the path is not in the archive"),
    "register with workers and response_timeout 0": (200, "TorchServe 0.12 itself: workers start all the same"),
    "register with response_timeout 0": (409, "TorchServe 0.12 itself: it is registered by the request before"),
    "register with synchronous -1": (202, "TorchServe 0.12 itself, unless default_workers_per_model is 0"),
    "register, asynchronous": (202, "as above"),
    "scale to -1": (400, "500 is an IndexOutOfBoundsException of TorchServe's; the fault is the caller's"),
}
"""What Marway answers otherwise, and why. TorchServe 0.12 itself: 80 of 82 as expected with `default_workers_per_model`
0, 71 with 1, which is like its own default."""
