"""Ask a gateway from Python: `Client`, and `AsyncClient` for asyncio.

::

    from marway.client import Client

    client = Client("http://127.0.0.1:8000")
    print(client.predict("intent", "wake me at seven"))

What goes wrong is a `marway.errors.MarwayError` of the kind that it is, with the request's ids.
"""

from marway.client.answers import Answer, ModelRefused
from marway.client.asynchronous import AsyncClient
from marway.client.blocking import Client
from marway.client.catalogue import Model, ModelVersion
from marway.client.pieces import Event
from marway.client.streams import AnswerStream, AsyncAnswerStream

__all__ = [
    "Answer",
    "AnswerStream",
    "AsyncAnswerStream",
    "AsyncClient",
    "Client",
    "Event",
    "Model",
    "ModelRefused",
    "ModelVersion",
]
