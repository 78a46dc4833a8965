"""What TorchServe starts for each worker in place of `python`: `python -I -S shim.py HOME SOCKET -- SCRIPT ARGS…`.

Hands its arguments, environment, working directory and standard streams to the fork server, and then becomes a shell
that waits for the worker's exit status: it takes a tenth of a MiB, where Python takes 4. When the fork server cannot
be had, it becomes a plain worker that says why on its command line. Only modules that are compiled into Python are
imported, so that it is gone after some 10 ms.
"""

import _socket
import posix
import sys

__all__ = ["main"]

_TIMEOUT_S = 5.0
# `read` fails at the end of the connection: the fork server died before the worker, whose status nobody knows.
_RELAY = 'read -r status || status=1; exit "$status"'


def main() -> None:
    """Have the fork server start a worker, and end with it; or be a plain worker."""
    home, address, _, *arguments = sys.argv[1:]
    connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    connection.settimeout(_TIMEOUT_S)
    try:
        connection.connect(address)
        _send(connection, arguments)
        answer = _line(connection)
    except TimeoutError:
        _be_plain(home, "the fork server does not answer", arguments)
    except OSError:
        _be_plain(home, "no fork server", arguments)
    if not answer.isdigit():
        _be_plain(home, answer or "the fork server ended", arguments)
    connection.settimeout(None)  # the shell reads a blocking socket
    posix.dup2(connection.fileno(), 0)
    posix.execv("/bin/sh", ["/bin/sh", "-c", _RELAY, "marway-worker-shim", "--home", home, "--worker", answer])


def _send(connection: _socket.socket, arguments: list[str]) -> None:
    descriptors = [0, 1, 2]
    if hasattr(posix, "pidfd_open"):
        parent = posix.getppid()
        descriptors.append(posix.pidfd_open(parent))
        if posix.getppid() != parent:
            sys.exit(1)  # TorchServe is gone already
    environment = [name + b"=" + value for name, value in posix.environ.items()]
    words = [word.encode(sys.getfilesystemencoding(), "surrogateescape") for word in arguments]
    body = b"\0".join([posix.getcwdb(), str(len(words)).encode(), *words, *environment])
    message = len(body).to_bytes(8, "big") + body
    rights = b"".join(number.to_bytes(4, sys.byteorder) for number in descriptors)
    sent = connection.sendmsg([message], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, rights)])
    connection.sendall(message[sent:])


def _line(connection: _socket.socket) -> str:
    line = b""
    while not line.endswith(b"\n"):
        part = connection.recv(256)
        if not part:
            break
        line += part
    return line.decode().strip()


def _be_plain(home: str, reason: str, arguments: list[str]) -> None:
    words = ["-I", "-u", "-B", "-m", "marway_runtime.worker", "--home", home, "--reason", reason, "--", *arguments]
    posix.execv(sys.executable, [sys.executable, *words])


if __name__ == "__main__":
    main()
