"""One prediction through a gateway, as a client makes it."""

from __future__ import annotations

import httpx

from marway.errors import MarwayError, Unavailable
from marway.wire import headers, problems

__all__ = ["predict_once"]


def predict_once(
    gateway: str, reference: str, body: bytes, *, content_type: str, timeout_s: float, token: str | None = None
) -> httpx.Response:
    """Send one input, through the gateway at a URL and within ``timeout_s`` in all, and return the model's answer.

    Raises:
        MarwayError: What the gateway answered, as the error it stands for.
        Unavailable: There is no gateway.
    """
    sent = {"content-type": content_type, headers.REQUEST_TIMEOUT_MS: str(max(1, int(timeout_s * 1000)))}
    if token is not None:
        sent["authorization"] = f"Bearer {token}"
    try:
        with httpx.Client(timeout=httpx.Timeout(timeout_s + 5.0, connect=5.0), trust_env=False) as client:
            answer = client.post(f"{gateway}/predict/{reference}", content=body, headers=sent)
    except httpx.TransportError as exc:
        raise Unavailable(f"no gateway answers at {gateway}: {exc}; is `marway up` running?") from exc
    if answer.headers.get("content-type", "").startswith(problems.CONTENT_TYPE):
        raise problems.parse_problem(answer.content, status=answer.status_code)
    if answer.is_error:
        raise MarwayError(f"the model answered with status {answer.status_code}: {answer.text[:500]}")
    return answer
