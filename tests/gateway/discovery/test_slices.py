"""Pods by the EndpointSlices of a Service, from a stand-in of the API that speaks as it does and breaks as it may."""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Self

import pytest

from gateway.fakes import FakePod, free_port, running
from marway.errors import InvalidSettings
from marway.registry import Registry
from marway.settings import load_settings
from marway_gateway.discovery import SlicesSource
from marway_gateway.discovery.endpoint_slices import EndpointSliceList, pods_of
from marway_gateway.discovery.kubernetes_api import KubernetesApi
from marway_gateway.settings import GatewaySettings, PodAddress, PodSlices
from support.kubernetes_api import Certificates, Credentials, SlicesApi, endpoint, slice_of
from support.registry import publish, until

DOCUMENT = Path(__file__).parent / "api_documents" / "endpointslices.json"
MakePod = Callable[..., Awaitable[FakePod]]

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl here to make certificates with")


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("tls") / "ca")


@pytest.fixture
async def api(certificates: Certificates) -> AsyncIterator[SlicesApi]:
    api = SlicesApi()
    api.put(slice_of("pods-1", [endpoint("a", "10.0.0.1"), endpoint("b", "10.0.0.2")]))
    await api.start(certificates)
    yield api
    await api.stop()


@pytest.fixture
def credentials(tmp_path: Path, certificates: Certificates) -> Credentials:
    return Credentials(tmp_path / "serviceaccount", certificates.bundle)


class Followed:
    """A source that is followed as a gateway does, and how often it told of changes."""

    def __init__(self, api: SlicesApi, credentials: Credentials) -> None:
        reader = KubernetesApi("pods", None, credentials_dir=credentials.directory, environment=api.environment)
        self.source = SlicesSource(PodSlices("pods", None, 9000), reader, pause_s=0.02)
        self.changes = 0

    async def __aenter__(self) -> Self:
        await self.source.find()
        self._task = asyncio.create_task(self.source.follow(self._changed))
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        await self.source.aclose()

    async def _changed(self) -> None:
        self.changes += 1

    @property
    def pods(self) -> dict[str, bool]:
        """The pods' names, and whether they are leaving."""
        return {pod.address.name: pod.leaving for pod in self.source.pods}


@pytest.fixture
async def followed(api: SlicesApi, credentials: Credentials) -> AsyncIterator[Followed]:
    async with Followed(api, credentials) as followed:
        await until(lambda: api.watches == 1)
        yield followed


# -- what slices say -------------------------------------------------------------------------------------------


def test_slices_as_the_api_returns_them() -> None:
    """Slices of two families are one set of pods, called by their own names, and the terminating one is leaving."""
    found = pods_of(EndpointSliceList.model_validate_json(DOCUMENT.read_bytes()).items, port=9000)
    assert [(pod.address, pod.leaving) for pod in found] == [
        (PodAddress("marway-pod-6d9c7b5f4d-2xw8k", "http://10.244.1.17:9000"), False),
        (PodAddress("marway-pod-6d9c7b5f4d-h5tqz", "http://10.244.2.9:9000"), True),
        (PodAddress("marway-pod-84f4c6dd7b-k9vgn", "http://10.244.3.4:9000"), False),
    ]


def found_in(*slices: dict[str, object]) -> dict[str, tuple[str, bool]]:
    items = [
        {**each, "metadata": {"name": f"s-{number}", "resourceVersion": "1"}} for number, each in enumerate(slices)
    ]
    parsed = EndpointSliceList.model_validate({"metadata": {"resourceVersion": "1"}, "items": items})
    return {pod.address.name: (pod.address.url, pod.leaving) for pod in pods_of(parsed.items, port=9000)}


def test_order_and_splitting_of_slices_do_not_matter() -> None:
    """However endpoints are spread over slices, and in whatever order these come, the pods are the same."""
    a, b, six = endpoint("a", "10.0.0.1"), endpoint("b", "10.0.0.2", terminating=True), endpoint("a", "fd00::1")
    slices = [slice_of("1", [a]), slice_of("2", [b]), slice_of("3", [six], address_type="IPv6")]
    expected = {"a": ("http://10.0.0.1:9000", False), "b": ("http://10.0.0.2:9000", True)}
    for order in itertools.permutations(slices):
        assert found_in(*order) == expected
    assert found_in(slice_of("1", [b, a]), slices[2]) == expected


def test_a_pod_that_moves_between_slices_is_leaving_once_one_says_so() -> None:
    """No pod comes back from termination, so the slice that says it is the newer one."""
    old, new = endpoint("a", "10.0.0.1"), endpoint("a", "10.0.0.1", terminating=True)
    assert found_in(slice_of("1", [old]), slice_of("2", [new])) == {"a": ("http://10.0.0.1:9000", True)}
    assert found_in(slice_of("1", [new]), slice_of("2", [old])) == {"a": ("http://10.0.0.1:9000", True)}


def test_the_new_pod_of_a_stateful_set_takes_its_name_over() -> None:
    """Of two pods of one name the one that stays is meant, whichever comes first."""
    old = endpoint("pods-0", "10.0.0.1", terminating=True, uid="z-old")
    new = endpoint("pods-0", "10.0.0.7", uid="a-new")
    for both in ([old, new], [new, old]):
        assert found_in(slice_of("1", both)) == {"pods-0": ("http://10.0.0.7:9000", False)}


def test_slices_with_less_in_them() -> None:
    """Without conditions a pod stays; what stands for no pod goes by its address; null is an empty list."""
    six = {**endpoint("a", "FD00::1"), "conditions": {}}
    nameless = {"addresses": ["10.0.0.9", "10.0.0.10"], "conditions": {"ready": True}}
    node = {**endpoint("n", "10.0.0.3"), "targetRef": {"kind": "Node", "name": "n"}}
    assert found_in(
        slice_of("1", [six], address_type="IPv6"),
        slice_of("2", [nameless, node]),
        {**slice_of("3", []), "endpoints": None},
        slice_of("4", [{**nameless, "addresses": ["a.example.org"]}], address_type="FQDN"),
        slice_of("5", [{**nameless, "addresses": ["127.0.0.1/../../x"]}]),
    ) == {
        "a": ("http://[fd00::1]:9000", False),
        "10.0.0.9:9000": ("http://10.0.0.9:9000", False),
        "10.0.0.3:9000": ("http://10.0.0.3:9000", False),
    }


# -- list and watch --------------------------------------------------------------------------------------------


async def test_changes_are_followed(api: SlicesApi, followed: Followed) -> None:
    """Pods that come, terminate and go are known from the watch alone, in the slices of this Service only."""
    assert followed.pods == {"a": False, "b": False}
    api.put(slice_of("pods-1", [endpoint("a", "10.0.0.1", terminating=True), endpoint("b", "10.0.0.2")]))
    await until(lambda: followed.pods == {"a": True, "b": False})
    api.put(slice_of("pods-2", [endpoint("c", "10.0.0.3", ready=False)]))
    await until(lambda: followed.pods == {"a": True, "b": False, "c": False})
    api.put(slice_of("pods-1", [endpoint("b", "10.0.0.2")]))
    await until(lambda: followed.pods == {"b": False, "c": False})
    api.delete("pods-1")
    await until(lambda: followed.pods == {"c": False})
    assert followed.changes == 4
    assert api.lists == 1
    assert api.asked[0].path == "/apis/discovery.k8s.io/v1/namespaces/marway/endpointslices"
    assert {asked.query["labelSelector"] for asked in api.asked} == {"kubernetes.io/service-name=pods"}
    assert api.asked[1].query["allowWatchBookmarks"] == "true"


async def test_lists_of_several_pages(api: SlicesApi, credentials: Credentials) -> None:
    """A list that comes in pages is read to its end, of the named Service alone."""
    api.page = 2
    for number in range(2, 6):
        api.put(slice_of(f"pods-{number}", [endpoint(f"p{number}", f"10.0.1.{number}")]))
    api.put(slice_of("others", [endpoint("other", "10.0.9.9")], service="others"))
    async with Followed(api, credentials) as followed:
        assert set(followed.pods) == {"a", "b", "p2", "p3", "p4", "p5"}
        assert api.lists == 3


@pytest.mark.parametrize("how", ["cut", "end", "unfinished"])
async def test_a_watch_that_ends_goes_on_where_it_was(api: SlicesApi, followed: Followed, how: str) -> None:
    """After a cut, also within a line, or an end, the next watch begins at the last version seen or bookmarked."""
    api.bookmark()
    seen = str(api.version)
    api.put(slice_of("pods-2", [endpoint("c", "10.0.0.3")]))
    await until(lambda: "c" in followed.pods)
    api.bookmark()
    if how == "unfinished":
        api.say(b'{"type":"DELETED","object":{"metadata":{"name":"pods-1","resourceVersion":"9')
    if how == "end":
        api.end()
    else:
        # What was said before the cut arrives first, or the next watch says it again: both are right.
        api.cut()
    await until(lambda: api.watches == 0)
    api.put(slice_of("pods-3", [endpoint("d", "10.0.0.4")]))
    await until(lambda: set(followed.pods) == {"a", "b", "c", "d"})
    assert api.lists == 1
    assert int(api.asked[-1].query["resourceVersion"]) > int(seen)


@pytest.mark.parametrize("in_stream", [False, True])
async def test_410_means_to_list_again(api: SlicesApi, followed: Followed, in_stream: bool) -> None:
    """When the changes since are forgotten, said by status or in the stream, the slices are listed again."""
    api.gone_in_stream = in_stream
    api.cut()
    await until(lambda: api.watches == 0)
    api.delete("pods-1")
    api.put(slice_of("pods-9", [endpoint("z", "10.0.0.9")]))
    api.forgotten = api.version
    await until(lambda: followed.pods == {"z": False})
    assert api.lists == 2


@pytest.mark.parametrize("piece", [1, 7, 4096])
async def test_lines_may_come_in_any_pieces(api: SlicesApi, followed: Followed, piece: int) -> None:
    """Events that drip in byte by byte, or many at once, are the same events; U+2028 ends no line."""
    api.piece = piece
    odd = slice_of("pods-2", [{**endpoint("c", "10.0.0.3"), "hints": {"note": "a\u2028b\u0085c"}}])
    api.put(odd)
    api.say(b"\n")
    api.put(slice_of("pods-3", [endpoint("d", "10.0.0.4")]))
    await until(lambda: set(followed.pods) == {"a", "b", "c", "d"})
    assert api.lists == 1


async def test_many_events_in_one_piece(api: SlicesApi, followed: Followed) -> None:
    """Several lines in one piece are taken in order."""
    lines = b""
    for number in range(20):
        found = slice_of("pods-1", [endpoint(f"p{number}", "10.0.0.1")])
        found["metadata"]["resourceVersion"] = str(2000 + number)
        lines += json.dumps({"type": "MODIFIED", "object": found}).encode() + b"\n"
    api.say(lines)
    await until(lambda: followed.pods == {"p19": False})


@pytest.mark.parametrize(
    "nonsense",
    [
        b"<html>\n",
        b'{"type":"ADDED"}\n',
        b'{"type":"MOVED","object":{}}\n',
        b'{"type":"ADDED","object":{"metadata":{"name":"../x","resourceVersion":"1"},"addressType":"IPv4"}}\n',
        b'{"type":"MODIFIED","object":{"metadata":{"name":"p","resourceVersion":"1"},"endpoints":[{}]}}\n',
        b'{"type":"ERROR","object":{"kind":"Status","code":500,"message":"etcd is away"}}\n',
        b'{"type":"BOOKMARK","object":{}}\n',
        b"\xff\xfe\n",
    ],
)
async def test_nonsense_in_a_watch_changes_nothing(
    api: SlicesApi, followed: Followed, nonsense: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """What nobody understands leaves the pods as they are; a new watch, after a new list if need be, goes on."""
    api.say(nonsense)
    await until(lambda: len(api.asked) >= 3 and api.watches == 1)
    assert followed.pods == {"a": False, "b": False}
    api.put(slice_of("pods-1", [endpoint("c", "10.0.0.3")]))
    await until(lambda: followed.pods == {"c": False})
    assert "keeping the 2 pods known" in caplog.text


async def test_the_api_goes_away_and_comes_back(
    api: SlicesApi, followed: Followed, certificates: Certificates, caplog: pytest.LogCaptureFixture
) -> None:
    """While nobody listens there the last pods stay, with one line of log; afterwards changes are seen again."""
    caplog.set_level(logging.INFO, logger="marway_gateway")
    await api.stop()
    await until(lambda: followed.source.trouble is not None)
    assert followed.pods == {"a": False, "b": False}
    api.put(slice_of("pods-2", [endpoint("c", "10.0.0.3")]))
    await api.start(certificates)
    await until(lambda: "c" in followed.pods and followed.source.trouble is None)
    assert caplog.text.count("answers again") == 1


@pytest.mark.parametrize("answer", [b"<html>", b"{}", b'{"metadata":{"resourceVersion":"1"},"items":[{}]}', b"[1"])
async def test_a_list_that_is_none(api: SlicesApi, credentials: Credentials, answer: bytes) -> None:
    """A list that nobody understands is asked for again."""
    api.body = answer
    async with Followed(api, credentials) as followed:
        assert followed.pods == {}
        assert "something else than a list" in (followed.source.trouble or "")
        api.body = None
        await until(lambda: followed.pods == {"a": False, "b": False})


# -- who may ---------------------------------------------------------------------------------------------------


async def test_the_token_is_read_again(api: SlicesApi, followed: Followed, credentials: Credentials) -> None:
    """After the kubelet replaced the token, the next request has the new one."""
    credentials.rotate("second-token")
    api.tokens = {"second-token"}
    api.end()
    await until(lambda: api.asked[-1].token == "second-token" and api.watches == 1)
    assert {asked.token for asked in api.asked[:2]} == {"first-token"}
    api.put(slice_of("pods-2", [endpoint("c", "10.0.0.3")]))
    await until(lambda: "c" in followed.pods)


@pytest.mark.parametrize(
    ("status", "says"),
    [
        (401, "does not know the token of this service account"),
        (403, 'apiGroups ["discovery.k8s.io"], resources ["endpointslices"], verbs ["list", "watch"]'),
    ],
)
@pytest.mark.parametrize("only_watch", [False, True])
async def test_a_refusal_says_which_rule_is_missing(
    api: SlicesApi,
    credentials: Credentials,
    caplog: pytest.LogCaptureFixture,
    status: int,
    says: str,
    only_watch: bool,
) -> None:
    """A gateway that may not ask says once what to allow, keeps its pods and begins as soon as it may."""
    if only_watch:
        api.watch_refusal = status
    else:
        api.refusal = status
    async with Followed(api, credentials) as followed:
        await until(lambda: len(api.asked) >= 4)
        assert says in (followed.source.trouble or "")
        assert caplog.text.count(says) == 1
        api.refusal = api.watch_refusal = None
        await until(lambda: followed.source.trouble is None and api.watches == 1)
        assert followed.pods == {"a": False, "b": False}


async def test_too_many_requests(api: SlicesApi, credentials: Credentials) -> None:
    """An API that says when to come again is not asked before."""
    api.refusal = 429
    async with Followed(api, credentials) as followed:
        await until(lambda: len(api.asked) == 2)
        loop = asyncio.get_running_loop()
        began = loop.time()
        await until(lambda: len(api.asked) == 3)
        assert loop.time() - began >= 0.9
        assert followed.pods == {}


async def test_a_certificate_of_somebody_else_is_refused(
    api: SlicesApi, tmp_path: Path, credentials: Credentials
) -> None:
    """Without the mount's own authority behind the certificate no token is sent; a new bundle is read."""
    good = (credentials.directory / "ca.crt").read_bytes()
    other = Certificates(tmp_path / "other")
    (credentials.directory / "ca.crt").write_bytes(other.bundle.read_bytes())
    async with Followed(api, credentials) as followed:
        assert "CERTIFICATE_VERIFY_FAILED" in (followed.source.trouble or "")
        assert api.asked == []
        (credentials.directory / "ca.crt").write_bytes(good)
        await until(lambda: followed.pods == {"a": False, "b": False})


def test_outside_a_cluster_there_is_one_clear_error(credentials: Credentials) -> None:
    """Without the API's address, or without a mounted service account, the gateway says what is missing."""
    with pytest.raises(InvalidSettings, match=r"KUBERNETES_SERVICE_HOST is not set: elsewhere use dns://NAME:PORT"):
        KubernetesApi("pods", None, credentials_dir=credentials.directory, environment={})
    (credentials.directory / "token").unlink()
    with pytest.raises(InvalidSettings, match="as the component endpointslices does"):
        KubernetesApi(
            "pods", None, credentials_dir=credentials.directory, environment={"KUBERNETES_SERVICE_HOST": "10.0.0.1"}
        )


# -- the gateway -----------------------------------------------------------------------------------------------


def test_services_in_settings() -> None:
    """A Service is named with or without its namespace; anything else is refused with an example."""
    settings = load_settings(GatewaySettings, pods="kubernetes://pods.marway:9000, kubernetes://pods:9000")
    assert settings.pods == (PodSlices("pods", "marway", 9000), PodSlices("pods", None, 9000))
    assert [str(each) for each in settings.pods] == ["kubernetes://pods.marway:9000", "kubernetes://pods:9000"]
    for wrong in (
        "kubernetes://pods",
        "kubernetes://pods.marway.svc:9000",
        "kubernetes://:1",
        "kubernetes://p:0",
        "kubernetes://a_b:1",
    ):
        with pytest.raises(InvalidSettings, match=r"write kubernetes://SERVICE\.NAMESPACE:PORT"):
            load_settings(GatewaySettings, pods=wrong)


async def test_a_gateway_over_slices(
    registry: Registry,
    tmp_path: Path,
    make_pod: MakePod,
    api: SlicesApi,
    credentials: Credentials,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Requests go to the pods of the slices; a terminating one is shown as such, and without pods the API's word is."""
    publish(registry, tmp_path)
    for name, value in api.environment.items():
        monkeypatch.setenv(name, value)
    pod = await make_pod("pod-a")
    api.put(slice_of("pods-1", [endpoint("pod-a", "127.0.0.1")]))
    async with running(
        registry=registry,
        pods=(PodSlices("pods", None, pod.port),),
        kubernetes_credentials_dir=credentials.directory,
    ) as gateway:
        assert (await gateway.predict()).status_code == 200
        assert [each["name"] for each in (await gateway.admin.get("/pods")).json()] == ["pod-a"]
        api.put(slice_of("pods-1", [endpoint("pod-a", "127.0.0.1", terminating=True)]))
        while (shown := (await gateway.admin.get("/pods")).json())[0]["trouble"] != "is being terminated":
            pass
        assert not shown[0]["eligible"]
        assert (await gateway.predict()).status_code == 503
        api.delete("pods-1")
        while (await gateway.admin.get("/pods")).json():
            pass
        answer = await gateway.client.get("/readyz")
        assert answer.status_code == 503
        assert f"no pod is found: kubernetes://pods:{pod.port}" in answer.json()["detail"]


async def test_a_gateway_that_may_not_ask_starts_and_says_why(
    registry: Registry, api: SlicesApi, credentials: Credentials, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the RBAC rule a gateway runs, is not ready and names the rule."""
    for name, value in api.environment.items():
        monkeypatch.setenv(name, value)
    api.refusal = 403
    async with running(
        registry=registry,
        pods=(PodSlices("pods", "marway", free_port()),),
        kubernetes_credentials_dir=credentials.directory,
    ) as gateway:
        while (answer := await gateway.client.get("/readyz")).status_code == 503:
            if 'resources ["endpointslices"]' in answer.json()["detail"]:
                break  # it says other things until the API has answered
        assert answer.status_code == 503
