"""The S3 store where the network, the credentials or the server are not what they should be."""

from __future__ import annotations

import hashlib
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from marway.errors import InvalidSettings, OutcomeUnknown, RegistryUnavailable
from marway.objects import ObjectExists, ObjectMissing, open_store
from marway.objects.probing import probe
from marway.objects.s3 import S3Store, retries
from marway.objects.s3 import client as s3_client
from support.careless_s3 import careless_s3
from support.expiring_s3 import expiring_s3
from support.lossy_proxy import LossyProxy, lossy_proxy
from support.seaweed import S3Server

LARGE = 20 * 1024 * 1024 + 3


@pytest.fixture
def proxy(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[LossyProxy]:
    """A proxy before the server, which the environment names as the endpoint."""
    with lossy_proxy(s3.endpoint) as running:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", running.endpoint)
        yield running


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No waiting between attempts."""
    monkeypatch.setattr(retries.random, "uniform", lambda low, high: 0.0)


@pytest.fixture
def large(tmp_path: Path) -> tuple[Path, str]:
    path = tmp_path / "large.mar"
    data = b"".join(hashlib.sha256(b"%d" % number).digest() for number in range(LARGE // 32 + 1))[:LARGE]
    path.write_bytes(data)
    return path, hashlib.sha256(data).hexdigest()


class LoseFirst:
    """Loses the replies to the first requests of a method whose target has something in it."""

    def __init__(self, method: str, part: str = "", *, times: int = 1) -> None:
        self._method = method
        self._part = part
        self._left = times

    def __call__(self, method: str, path: str) -> bool:
        if method != self._method or self._part not in path or self._left == 0:
            return False
        self._left -= 1
        return True


def test_imported_lazily() -> None:
    """Who uses a directory does not pay for importing boto3."""
    program = "import sys, marway.registry, marway.objects as o; o.open_store('/x'); sys.exit('boto3' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


@pytest.mark.parametrize(
    "url",
    ["s3://", "s3:///prefix", "s3://Bucket/x", "s3://user@bucket/x", "s3://bucket:80/x", "s3://b/x", "s3://bucket/a//b",
     "s3://bucket/../x", "s3://bucket/x?y=z"],
)  # fmt: skip
def test_bad_urls(url: str) -> None:
    """A URL that names no bucket, or cannot begin keys, is refused at once."""
    with pytest.raises(InvalidSettings, match="use s3://bucket/prefix"):
        open_store(url)


@pytest.mark.parametrize("url", ["s3://bucket", "s3://bucket/", "s3://bucket/some/prefix/"])
def test_url(url: str) -> None:
    """A store's URL is the one it was opened with, without a slash at its end."""
    assert open_store(url).url == url.rstrip("/")


def test_bucket_root(s3: S3Server) -> None:
    """A registry may be a whole bucket."""
    store = open_store(f"s3://{s3.bucket}")
    store.create("models/root/x", b"1")
    assert "root" in store.children("models/")
    store.delete("models/root/x")


def test_lost_create(s3_url: str, proxy: LossyProxy) -> None:
    """A creation whose reply is lost is found to have been done, and is not done twice."""
    proxy.lose = LoseFirst("PUT")
    store = open_store(s3_url)
    tag = store.create("a/b", b"mine")
    assert store.get("a/b").etag == tag
    assert len([each for each in proxy.requests if each.startswith("PUT")]) == 1
    assert len(proxy.lost) == 1


def test_lost_replace(s3_url: str, proxy: LossyProxy) -> None:
    """A replacement whose reply is lost is found to have been done."""
    store = open_store(s3_url)
    tag = store.create("a/b", b"1")
    proxy.lose = LoseFirst("PUT")
    assert store.replace("a/b", b"2", etag=tag) == store.get("a/b").etag
    assert store.get("a/b").data == b"2"


def test_lost_refusal(s3_url: str, proxy: LossyProxy) -> None:
    """A refusal whose reply is lost is found to have been one."""
    store = open_store(s3_url)
    store.create("a/b", b"theirs")
    proxy.lose = LoseFirst("PUT")
    with pytest.raises(ObjectExists):
        store.create("a/b", b"mine")
    assert store.get("a/b").data == b"theirs"


def test_lost_delete(s3_url: str, proxy: LossyProxy) -> None:
    """A removal whose reply is lost is found to have been done."""
    store = open_store(s3_url)
    tag = store.create("a/b", b"1")
    proxy.lose = LoseFirst("DELETE")
    store.delete("a/b", etag=tag)
    assert store.size("a/b") is None


def test_unknown(s3_url: str, proxy: LossyProxy, quick: None) -> None:
    """A write whose reply is lost and that cannot be read back is said to be unknown, not to have failed."""
    store = open_store(s3_url)
    store.create("a/first", b"")
    proxy.lose = lambda method, path: "a/b" in path
    with pytest.raises(OutcomeUnknown, match="unknown whether a/b was written"):
        store.create("a/b", b"mine")
    proxy.lose = lambda method, path: False
    assert store.get("a/b").data == b"mine"


def test_lost_reads(s3_url: str, proxy: LossyProxy, quick: None) -> None:
    """Reads whose replies are lost are made again."""
    store = open_store(s3_url)
    store.create("models/m/x", b"1")
    proxy.lose = LoseFirst("GET", times=3)
    assert store.get("models/m/x").data == b"1"
    proxy.lose = LoseFirst("HEAD", times=3)
    assert store.size("models/m/x") == 1
    proxy.lose = LoseFirst("GET", times=3)
    assert list(store.children("models/")) == ["m"]


@pytest.mark.parametrize(
    ("method", "part"),
    [("POST", "uploads"), ("PUT", "partNumber=2"), ("POST", "uploadId="), ("HEAD", "")],
    ids=["begin", "part", "complete", "look"],
)
def test_lost_upload(
    s3_url: str, proxy: LossyProxy, large: tuple[Path, str], method: str, part: str, quick: None
) -> None:
    """A large upload succeeds whichever of its replies is lost, and the bytes are whole."""
    path, digest = large
    store = open_store(s3_url)
    proxy.lose = LoseFirst(method, part)
    store.create_file("archives/x.mar", path, sha256=digest)
    assert len(proxy.lost) == 1
    with store.open("archives/x.mar") as handle:
        assert hashlib.file_digest(handle, "sha256").hexdigest() == digest


def test_failed_upload_is_aborted(s3_url: str, proxy: LossyProxy, large: tuple[Path, str], quick: None) -> None:
    """An upload that fails leaves no parts behind."""
    path, digest = large
    store = open_store(s3_url)
    proxy.lose = lambda method, path: "partNumber=2" in path
    with pytest.raises(RegistryUnavailable, match="does not answer"):
        store.create_file("archives/x.mar", path, sha256=digest)
    assert store.size("archives/x.mar") is None
    assert store.sweep(older_than_s=-60, dry_run=True) == ()


def test_abandoned_upload_is_swept(s3: S3Server, s3_url: str) -> None:
    """The parts of an upload whose process died are removed when they are old enough."""
    prefix = s3_url.removeprefix(f"s3://{s3.bucket}/")
    s3.client().create_multipart_upload(Bucket=s3.bucket, Key=f"{prefix}/archives/x.mar")
    store = open_store(s3_url)
    assert store.sweep(older_than_s=3600) == ()
    assert [each.split(" ")[0] for each in store.sweep(older_than_s=-60)] == ["archives/x.mar"]
    assert store.sweep(older_than_s=-60) == ()


def test_resumed_read(s3_url: str, proxy: LossyProxy, large: tuple[Path, str], quick: None) -> None:
    """A download that is cut off goes on where it was, and asks only for the rest."""
    path, digest = large
    store = open_store(s3_url)
    store.create_file("archives/x.mar", path, sha256=digest)
    read = hashlib.sha256()
    proxy.requests.clear()
    with store.open("archives/x.mar") as handle:
        for _ in range(3):
            proxy.cut_after = 3_000_000
            read.update(handle.read(1))
            read.update(handle.read(3_500_000))
        while chunk := handle.read(1_000_000):
            read.update(chunk)
    assert read.hexdigest() == digest
    assert len([each for each in proxy.requests if each.startswith("GET")]) > 1


def test_part_is_one_request(s3_url: str, proxy: LossyProxy, large: tuple[Path, str], quick: None) -> None:
    """A part of an object takes one request; cut off, one more that asks only for the rest of the part."""
    path, digest = large
    store = open_store(s3_url)
    store.create_file("archives/x.mar", path, sha256=digest)
    for cut, requests in ((None, 1), (1_000_000, 2)):
        proxy.requests.clear()
        proxy.cut_after = cut
        with store.open("archives/x.mar", start=5_000_000, length=4_000_000) as handle:
            assert handle.read() == path.read_bytes()[5_000_000:9_000_000]
        assert [each.split()[0] for each in proxy.requests] == ["GET"] * requests


def test_store_without_ranges_is_refused(tmp_path: Path, s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that sends the whole object where a part was asked for is found out, not believed."""
    with careless_s3() as endpoint:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", endpoint)
        store = open_store("s3://bucket/x")
        store._client.put_object(Bucket="bucket", Key="x/a", Body=b"0123456789")  # type: ignore[attr-defined]
        with store.open("a", start=0, length=4) as handle:
            assert handle.read() == b"0123"
        with pytest.raises(RegistryUnavailable, match="sends whole objects"), store.open("a", start=3, length=4):
            pass


def test_changed_under_a_reader(
    s3: S3Server, s3_url: str, proxy: LossyProxy, monkeypatch: pytest.MonkeyPatch, quick: None
) -> None:
    """A download that is cut off never goes on in another object's bytes."""
    store = open_store(s3_url)
    tag = store.create("a/b", b"1" * 4_000_000)
    proxy.cut_after = 1_000_000
    with store.open("a/b") as handle:
        assert handle.read(10) == b"1" * 10
        store.replace("a/b", b"2" * 4_000_000, etag=tag)
        with pytest.raises(RegistryUnavailable, match="changed at the same moment"):
            handle.read()


def test_deleted_under_a_reader(s3_url: str, proxy: LossyProxy, quick: None) -> None:
    """A download that is cut off and whose object is gone says that it is missing."""
    store = open_store(s3_url)
    store.create("a/b", b"1" * 4_000_000)
    proxy.cut_after = 1_000_000
    with store.open("a/b") as handle:
        handle.read(10)
        store.delete("a/b")
        with pytest.raises(ObjectMissing):
            handle.read()


def test_wrong_checksum_is_refused(s3: S3Server, s3_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server checks the bytes that reach it, and refuses those that were changed on the way."""
    store = open_store(s3_url)
    real = hashlib.sha256
    monkeypatch.setattr("marway.objects.s3.store.hashlib.sha256", lambda data=b"": real(b"other" + data))
    with pytest.raises(RegistryUnavailable, match="refused the request"):
        store.create("a/b", b"mine")
    assert store.size("a/b") is None


def test_careless_server(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that ignores conditions fails the probe with an error that says what would happen."""
    with careless_s3() as endpoint:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", endpoint)
        with pytest.raises(InvalidSettings, match=r"32 of 32 creators .* overwrite one another"):
            probe(open_store("s3://bucket/x"))


def test_wrong_credentials(s3_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Credentials that the server does not know are said to be the reason."""
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(RegistryUnavailable, match="credentials were not accepted"):
        open_store(s3_url).get("a/b")


def test_renewed_credentials(s3: S3Server, s3_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Credentials that were refused, or not there, are read anew from their file, and not all the time."""
    file = tmp_path / "credentials"
    said = "[default]\naws_access_key_id = k\naws_secret_access_key = s\naws_session_token = {}\n"
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    with expiring_s3(s3) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", proxy.endpoint)
        store = S3Store(s3_url)
        with pytest.raises(RegistryUnavailable, match="no AWS credentials"):
            store.get("a/b")
        monkeypatch.setattr(s3_client, "_RENEW_S", 0)
        for token in ("first", "second"):
            file.write_text(said.format(token))
            assert store.create(f"a/{token}", b"1")
            kept = store._client
            assert store._client is kept
            proxy.expired.add(token)
            with pytest.raises(RegistryUnavailable, match="credentials have expired"):
                store.get(f"a/{token}")
        monkeypatch.setattr(s3_client, "_RENEW_S", 60)
        file.write_text(said.format("third"))
        kept = store._client
        for _ in range(2):
            with pytest.raises(RegistryUnavailable, match="as it does when credentials have expired"):
                store.size("a/first")  # HEAD has no body to say why in
        assert store._client is kept


def test_no_credentials(s3_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Missing credentials are said to be the reason, and what to set."""
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(RegistryUnavailable, match=r"no AWS credentials were found.*AWS_ACCESS_KEY_ID"):
        open_store(s3_url).get("a/b")


def test_no_bucket(s3: S3Server) -> None:
    """A bucket that is not there is said to be the reason, by reads, writes and lists."""
    store = open_store("s3://no-such-bucket/x")
    for act in (lambda: store.get("a/b"), lambda: store.create("a/b", b""), lambda: list(store.keys("a/"))):
        with pytest.raises(RegistryUnavailable, match="there is no bucket 'no-such-bucket'"):
            act()


def test_unreachable(s3_url: str, monkeypatch: pytest.MonkeyPatch, quick: None) -> None:
    """A server that is not there is said to be unreachable, and a write to it surely not done."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: nobody else gets it, and connections are refused
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{taken.getsockname()[1]}")
        store = open_store(s3_url)
        for act in (lambda: store.get("a/b"), lambda: store.create("a/b", b"")):
            with pytest.raises(RegistryUnavailable, match="cannot be reached"):
                act()


@pytest.mark.parametrize("endpoint", ["localhost:8333", "http://"])
def test_bad_endpoint(s3_url: str, monkeypatch: pytest.MonkeyPatch, endpoint: str) -> None:
    """An endpoint that is no URL is refused with the name of the variable."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", endpoint)
    with pytest.raises(InvalidSettings, match="AWS_ENDPOINT_URL_S3"):
        open_store(s3_url).get("a/b")


def test_missing_profile(s3_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A profile that is not there is said to be the reason."""
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(RegistryUnavailable, match="nobody"):
        open_store(s3_url).get("a/b")


@pytest.mark.parametrize(("named", "style"), [(None, "virtual"), ("http://127.0.0.1:1", "path")])
def test_addressing(monkeypatch: pytest.MonkeyPatch, s3: S3Server, named: str | None, style: str) -> None:
    """The bucket is in the path off AWS, and in the host name where AWS chooses the endpoint."""
    if named is None:
        monkeypatch.delenv("AWS_ENDPOINT_URL_S3")
    else:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", named)
    store = S3Store("s3://some-bucket/x")
    url = store._client.generate_presigned_url("get_object", Params={"Bucket": "some-bucket", "Key": "k"})
    assert ("//some-bucket." in url) == (style == "virtual")


def test_after_fork(s3_url: str) -> None:
    """A process that was forked speaks over connections of its own."""
    store = open_store(s3_url)
    store.create("a/b", b"1")
    assert isinstance(store, S3Store)
    before = store._client
    assert store._clients._made is not None
    store._clients._made.pid = os.getpid() + 1  # as a child finds it
    assert store._client is not before
    assert store.get("a/b").data == b"1"


def test_clients_make_one_attempt(s3_url: str) -> None:
    """The SDK never sends a request twice behind our back."""
    store = S3Store(s3_url)
    assert store._client.meta.config.retries["total_max_attempts"] == 1


def test_jitter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits are drawn from the whole range up to a limit that doubles and is bounded, and they end."""
    limits: list[float] = []
    monkeypatch.setattr(retries.random, "uniform", lambda low, high: limits.append(high) or 0.0)
    waits = retries.Backoff(waits=4, base_s=1, max_s=3)
    while waits.wait():
        pass
    assert limits == [1, 2, 3, 3]


def test_patience_ends() -> None:
    """No further attempt begins when the time for all of them is over."""
    assert not retries.Backoff(give_up_s=-1).wait()
