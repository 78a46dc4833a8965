"""How a boto3 client for the registry is made, from a URL and the usual AWS variables."""

from __future__ import annotations

import os
import re
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import boto3
from botocore.config import Config

from marway.errors import InvalidSettings, clip
from marway.objects.s3.failures import VENDOR_ERRORS, explain, is_of_credentials

if TYPE_CHECKING:
    from botocore.client import BaseClient

__all__ = ["Access", "Clients", "parse_url"]

_BUCKET: Final = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_CONNECT_TIMEOUT_S: Final = 5
_READ_TIMEOUT_S: Final = 30
"""SeaweedFS lets the losers of a contended conditional write wait in steps of about a second."""
_CONNECTIONS_MAX: Final = 40
_RENEW_S: Final = 5.0
"""How often credentials that the store refuses, or that there are none of, are looked for anew."""
_REGION_OFF_AWS: Final = "us-east-1"
"""A signature needs some region; stores that are not AWS take any."""


@dataclass(frozen=True, slots=True)
class Access:
    """How one store is reached, in the place of what the environment says of all: endpoint, keys and region."""

    access_key: str
    secret_key: str = field(repr=False)
    endpoint: str | None = None
    region: str | None = None


def parse_url(url: str) -> tuple[str, str]:
    """Return the bucket and the prefix (empty, or ending with '/') that ``s3://bucket/prefix`` names.

    Raises:
        InvalidSettings: It names no bucket, or has parts that a key cannot have.
    """
    parts = urlsplit(url)
    bucket, prefix = parts.netloc, parts.path.strip("/")
    if not _BUCKET.fullmatch(bucket):
        raise InvalidSettings(
            f"registry {clip(url, 200)!r}: {bucket!r} is no bucket name: use s3://bucket/prefix"
            + ("; the endpoint is set by AWS_ENDPOINT_URL_S3" if ":" in bucket or "@" in bucket else "")
        )
    if parts.query or parts.fragment or any(part in ("", ".", "..") for part in prefix.split("/") if prefix):
        raise InvalidSettings(f"registry {clip(url, 200)!r}: {prefix!r} cannot begin keys: use s3://bucket/prefix")
    return bucket, f"{prefix}/" if prefix else ""


@dataclass(slots=True)
class _Made:
    """A client with the credentials that there were when it was made: boto3 reads a file of them once.

    Attributes:
        pid: Of the process that may use it: connections shared with a forked parent would mix up replies.
        refused: Whether the store did not take its credentials, or it has none.
    """

    client: Any
    pid: int
    at: float
    refused: bool

    def is_usable(self) -> bool:
        return self.pid == os.getpid() and not (self.refused and time.monotonic() - self.at > _RENEW_S)

    def note_reply(self, parsed: dict[str, Any], **_: object) -> None:
        """Note whether a reply, as botocore's events tell of it, refuses the credentials."""
        if is_of_credentials(str(parsed.get("Error", {}).get("Code", ""))):
            self.refused = True


class Clients:
    """Makes the client of the store at ``url``: a new one in a fork, and where its credentials are no longer taken."""

    def __init__(self, url: str, access: Access | None = None) -> None:
        self._url = url
        self._access = access
        self._making = threading.Lock()
        self._made: _Made | None = None

    def current(self) -> Any:
        """Return the client to use now.

        Raises:
            InvalidSettings: An AWS variable or profile cannot be used.
            RegistryUnavailable: The profile is not there.
        """
        made = self._made
        if made is None or not made.is_usable():
            with self._making:
                made = self._made
                if made is None or not made.is_usable():
                    client, has_credentials = _make_client(self._url, self._access)
                    made = self._made = _Made(client, os.getpid(), time.monotonic(), refused=not has_credentials)
                    client.meta.events.register("after-call.s3", made.note_reply)
        return made.client


def _make_client(url: str, access: Access | None) -> tuple[BaseClient, bool]:
    """Return a client that makes each call once (the caller decides what is sent again), and if it has credentials."""
    try:
        if access is not None:
            session = boto3.session.Session(access.access_key, access.secret_key, region_name=access.region)
            path_style = access.endpoint is not None and not _is_aws(access.endpoint)
            return _client(session, path_style=path_style, endpoint=access.endpoint), True
        # A session of its own: boto3's default one is shared and not made for threads.
        session = boto3.session.Session()
        named = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
        client = _client(session, path_style=named is not None and not _is_aws(named))
        if named is None and not _is_aws(client.meta.endpoint_url):  # the profile names an endpoint
            client = _client(session, path_style=True)
        has_credentials = session.get_credentials() is not None
    except ValueError as exc:
        raise InvalidSettings(
            f"{url}: {clip(str(exc), 300)} (AWS_ENDPOINT_URL_S3 is such as http://host:8333)"
        ) from exc
    except VENDOR_ERRORS as exc:
        raise explain(exc, url).error from exc
    return client, has_credentials


def _client(session: boto3.session.Session, *, path_style: bool, endpoint: str | None = None) -> BaseClient:
    region = os.environ.get("AWS_REGION") or session.region_name or _REGION_OFF_AWS
    options: dict[str, Any] = {"addressing_style": "path"} if path_style else {}
    return session.client(
        "s3",
        region_name=region,
        endpoint_url=endpoint,
        config=Config(
            signature_version="s3v4",
            connect_timeout=_CONNECT_TIMEOUT_S,
            read_timeout=_READ_TIMEOUT_S,
            # Sending a conditional write twice turns a lost reply into a refusal: never behind our back.
            retries={"total_max_attempts": 1},
            max_pool_connections=_CONNECTIONS_MAX,
            # We send SHA-256 ourselves; the CRC that boto3 would add comes as a trailer that some stores do not read.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            tcp_keepalive=True,
            user_agent_extra="marway",
            s3=options,
        ),
    )


def _is_aws(endpoint: str) -> bool:
    host = urlsplit(endpoint).hostname or ""
    return host.endswith((".amazonaws.com", ".amazonaws.com.cn"))
