"""One event to one webhook, as Standard Webhooks says: https://www.standardwebhooks.com.

The one seam where aiohttp's exceptions end.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
from standardwebhooks import Webhook as Signer

from marway import __version__
from marway.errors import clip
from marway.records import utc_now
from marway_gateway.events.webhooks import Webhook
from marway_gateway.transport.reply import seconds_of
from marway_observations.events.event import Event

__all__ = ["Outcome", "Sender", "message_id"]

_TIMEOUT_S: Final = 15.0
"""Of one attempt, all in all: what Standard Webhooks advises."""
_CONNECT_S: Final = 5.0
_SHOWN_BYTES: Final = 200
_GONE: Final = 410


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of an attempt.

    Attributes:
        taken: Whether the receiver has the event: it answered 2xx.
        error: Why not, for people.
        answers: Whether the receiver works, and refused this one event; else others need not be tried now.
        gone: Whether it wants no event any more: it answered 410.
        retry_after_s: When it asks to be tried again, in seconds.
    """

    taken: bool
    error: str | None = None
    answers: bool = True
    gone: bool = False
    retry_after_s: float | None = None


def message_id(event: Event) -> str:
    """Return the `webhook-id` of an event: the same at each attempt, and another than that of any other registry's."""
    digest = hashlib.sha256(f"{event.source}\n{event.id}".encode()).hexdigest()
    return f"msg_{digest[:32]}"


class Sender:
    """Posts events. Connections are kept for a while; redirects are not followed, and no cookie is kept."""

    def __init__(self) -> None:
        self._session = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=_TIMEOUT_S, sock_connect=_CONNECT_S),
            cookie_jar=aiohttp.DummyCookieJar(),
        )

    async def aclose(self) -> None:
        """Close all connections."""
        await self._session.close()

    async def send(self, webhook: Webhook, event: Event) -> Outcome:
        """Post an event to a webhook, once, within 15 seconds."""
        now = utc_now()
        body = event.encoded()
        headers = {
            "content-type": "application/cloudevents+json; charset=utf-8",
            "user-agent": f"marway/{__version__}",
            "webhook-id": message_id(event),
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": _signatures(webhook, event, body, now),
        }
        try:
            posted = self._session.post(
                webhook.url, data=body, headers=headers, allow_redirects=False, proxy=_proxy(webhook.url)
            )
            async with posted as answer:
                if 200 <= answer.status < 300:
                    return Outcome(True)
                text = (await answer.content.read(_SHOWN_BYTES)).decode(errors="replace")
                return _refused(answer, " ".join(text.split()))
        except TimeoutError:
            return Outcome(False, f"did not answer within {_TIMEOUT_S:g} s", answers=False)
        except (aiohttp.ClientError, OSError, ValueError) as exc:
            return Outcome(False, clip(f"could not be reached: {str(exc) or type(exc).__name__}", 300), answers=False)


def _proxy(url: str) -> str | None:
    """Return the proxy that the environment names for a URL: receivers are often outside.

    Not aiohttp's own `trust_env`, which also takes passwords out of a `.netrc`.
    """
    parts = urlsplit(url)
    if parts.hostname is None or proxy_bypass(parts.netloc):
        return None
    return getproxies().get(parts.scheme)


def _refused(answer: aiohttp.ClientResponse, text: str) -> Outcome:
    status = answer.status
    if 300 <= status < 400:
        where = clip(answer.headers.get("location", "elsewhere"), 200)
        return Outcome(False, f"answered {status}, to {where}: redirects are not followed, give that URL")
    error = f"answered {status}{f': {text}' if text else ''}"
    return Outcome(
        False,
        error,
        answers=status < 500 and status not in (408, 429),
        gone=status == _GONE,
        retry_after_s=seconds_of(answer.headers.get("retry-after")),
    )


def _signatures(webhook: Webhook, event: Event, body: bytes, now: datetime) -> str:
    signed = (Signer(key).sign(message_id(event), now.astimezone(UTC), body.decode()) for key in webhook.keys)
    return " ".join(signed)
