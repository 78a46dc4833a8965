"""What botocore's exceptions mean: the one seam at which they become Marway's errors.

Two questions matter: may the same call succeed a moment later, and may a write have been done all the same?
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final

from botocore import exceptions as boto
from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError

from marway.errors import RegistryUnavailable, clip

__all__ = ["VENDOR_ERRORS", "Failure", "Kind", "explain", "is_of_credentials"]

VENDOR_ERRORS: Final = (BotoCoreError, ClientError, HTTPClientError)
"""What a boto3 call raises."""


class Kind(Enum):
    """What a failed call means."""

    MISSING = "missing"
    """There is no such object or upload."""
    CONFLICT = "conflict"
    """A condition was not met, as far as this reply can tell."""
    NOT_SENT = "not_sent"
    """The request did not reach the store: nothing was done; try again."""
    IN_DOUBT = "in_doubt"
    """The store did not answer, or failed: a write may have been done; try again."""
    DENIED = "denied"
    """The store refuses us: nothing was done, and trying again does not help."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A failed call: what it means, and the error to raise if nothing better can be done."""

    kind: Kind
    error: RegistryUnavailable


_MISSING = {"NoSuchKey", "NoSuchUpload", "404", "NotFound"}
_CONFLICT = {"PreconditionFailed", "ConditionalRequestConflict", "OperationAborted", "409", "412"}
_BUSY = {"SlowDown", "RequestLimitExceeded", "Throttling", "ThrottlingException", "TooManyRequests", "RequestTimeout"}
_EXPIRED = {"ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired", "RequestExpired"}
_WRONG = {
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
    "InvalidToken",
    "InvalidSecurity",
    "AuthorizationHeaderMalformed",
}
_WITHOUT_A_WORD = {"400", "401", "403"}
"""Codes made up for answers without a body, such as those to HEAD: AWS answers 400 to it when a token has expired."""

_NOT_SENT = (boto.EndpointConnectionError, boto.ConnectTimeoutError, boto.ProxyConnectionError)
_NO_CREDENTIALS = (
    boto.NoCredentialsError, boto.PartialCredentialsError, boto.CredentialRetrievalError, boto.NoAuthTokenError,
    boto.ProfileNotFound,
)  # fmt: skip
_EXPIRED_SESSION = (
    boto.SSOTokenLoadError,
    boto.TokenRetrievalError,
    boto.UnauthorizedSSOTokenError,
    boto.LoginRefreshRequired,
)


def is_of_credentials(code: str) -> bool:
    """Return whether a store that answers with this code may take other credentials: renewed ones, for these."""
    return code in _EXPIRED or code in _WRONG or code in _WITHOUT_A_WORD


def explain(exc: Exception, url: str) -> Failure:
    """Return what an exception in `VENDOR_ERRORS` means for a call to the store at ``url``."""
    if isinstance(exc, ClientError):
        return _explain_reply(exc, url)
    if isinstance(exc, _NO_CREDENTIALS):
        return _denied(
            f"{url}: no AWS credentials were found ({_text_of(exc)}): set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, "
            "AWS_PROFILE, or a role for this machine or pod"
        )
    if isinstance(exc, _EXPIRED_SESSION):
        return _denied(
            f"{url}: the AWS session has expired ({_text_of(exc)}): sign in again, such as with `aws sso login`"
        )
    if isinstance(exc, boto.SSLError):
        return _denied(
            f"{url}: the endpoint's certificate was not accepted ({_text_of(exc)}): AWS_CA_BUNDLE names another CA"
        )
    if isinstance(exc, _NOT_SENT):
        return Failure(Kind.NOT_SENT, RegistryUnavailable(f"{url}: the store cannot be reached: {_text_of(exc)}"))
    if isinstance(exc, HTTPClientError):
        return Failure(Kind.IN_DOUBT, RegistryUnavailable(f"{url}: the store does not answer: {_text_of(exc)}"))
    if isinstance(exc, boto.IncompleteReadError):
        return Failure(Kind.IN_DOUBT, RegistryUnavailable(f"{url}: the store's answer was cut off: {_text_of(exc)}"))
    return _denied(f"{url}: {_text_of(exc)}")


def _explain_reply(exc: ClientError, url: str) -> Failure:
    error = exc.response.get("Error", {})
    code = str(error.get("Code", ""))
    status = int(exc.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    words = clip(f"{code}: {error.get('Message', '')}".strip(": "), 300) or f"status {status}"
    if code == "NoSuchBucket":
        bucket = url.removeprefix("s3://").partition("/")[0]
        return _denied(f"{url}: there is no bucket {bucket!r} at this endpoint: make it, or mend the URL")
    if code in _CONFLICT or status in (409, 412):
        return Failure(
            Kind.CONFLICT, RegistryUnavailable(f"{url}: the object was changed at the same moment ({words})")
        )
    if code in _MISSING or status == 404:
        return Failure(Kind.MISSING, RegistryUnavailable(f"{url}: not found ({words})"))
    if code in _EXPIRED:
        return _denied(
            f"{url}: the AWS credentials have expired ({words}): renew them; what runs reads a renewed file by itself"
        )
    if code == "RequestTimeTooSkewed":
        return _denied(f"{url}: this machine's clock differs from the store's by minutes: set the clock ({words})")
    if code in _WRONG or status == 401:
        return _denied(f"{url}: the AWS credentials were not accepted ({words})")
    if code == "400":
        return _denied(
            f"{url}: the store refused the request and did not say why ({words}), as it does when credentials have "
            "expired"
        )
    if status == 403:
        return _denied(f"{url}: access denied ({words}): docs/registry.md lists the permissions that are needed")
    if status >= 500 or code in _BUSY or status == 429:
        return Failure(Kind.IN_DOUBT, RegistryUnavailable(f"{url}: the store failed: {words}"))
    return _denied(f"{url}: the store refused the request: {words}")


def _denied(message: str) -> Failure:
    return Failure(Kind.DENIED, RegistryUnavailable(message))


def _text_of(exc: Exception) -> str:
    return clip(" ".join(str(exc).split()), 300)
