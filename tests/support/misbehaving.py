"""An HTTP origin that behaves as badly as a test wants: real sockets, a thread a connection."""

import itertools
import re
import socket
import threading
from collections import defaultdict
from typing import NamedTuple


class Request(NamedTuple):
    """connection: the number of the connection that it came over, from 0."""

    method: str
    path: str
    headers: dict
    connection: int


class Origin:
    """Answers each path with what `answers` has for it: bytes, or a function (socket, Request) that returns whether
    the connection goes on. A HEAD gets the bytes up to the empty line. What is not there is 404."""

    def __init__(self):
        self.answers = {}
        self.requests = []
        self._numbers = itertools.count()
        self._open = set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self._accept, daemon=True).start()

    def count(self, path, method="GET"):
        return sum((request.method, request.path) == (method, path) for request in self.requests)

    def connections(self):
        """How many connections have borne requests."""
        return len({request.connection for request in self.requests})

    def close(self):
        for one in (self._listener, *self._open):
            try:
                one.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            one.close()

    def _accept(self):
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._open.add(connection)
            threading.Thread(target=self._serve, args=(connection, next(self._numbers)), daemon=True).start()

    def _serve(self, connection, number):
        with connection:
            try:
                while (request := self._read(connection, number)) and self._answer(connection, request):
                    pass
            except OSError:
                pass
        self._open.discard(connection)

    def _read(self, connection, number):
        data = b""
        while b"\r\n\r\n" not in data:
            piece = connection.recv(65536)
            if not piece:
                return None
            data += piece
        first, *lines = data.decode().split("\r\n\r\n")[0].split("\r\n")
        method, path, _ = first.split()
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        request = Request(method, path, headers, number)
        self.requests.append(request)
        return request

    def _answer(self, connection, request):
        answer = self.answers.get(request.path, status(404))
        if not isinstance(answer, bytes):
            return answer(connection, request)
        if request.method == "HEAD":
            answer = answer[: re.match(rb"(HTTP/.*?\n\r?\n)+", answer, re.DOTALL).end()]
        connection.sendall(answer)
        return b"connection: close" not in answer.lower()


def ok(content, *headers, length=None):
    """200 with a length, by default the content's own."""
    lines = [b"HTTP/1.1 200 OK", b"Content-Length: %d" % (len(content) if length is None else length), *headers]
    return b"\r\n".join(lines) + b"\r\n\r\n" + content


def chunked(*pieces, end=b"0\r\n\r\n"):
    """200 without a length."""
    body = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces)
    return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + body + end


def status(code, *headers, content=b"an error page"):
    lines = [b"HTTP/1.1 %d Whatever" % code, b"Content-Length: %d" % len(content), *headers]
    return b"\r\n".join(lines) + b"\r\n\r\n" + content


def redirect(to, code=302):
    return status(code, b"Location: " + to.encode())


def closing(answer):
    """Sends this, and closes."""

    def close_after(connection, request):
        connection.sendall(answer)
        return False

    return close_after


def resetting(answer):
    """Sends this, and resets the connection."""

    def reset_after(connection, request):
        connection.sendall(answer)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        return False

    return reset_after


def by_method(**answers):
    """Another answer for HEAD than for GET."""

    def answer(connection, request):
        connection.sendall(answers[request.method])
        return True

    return answer


def silent_after(answer):
    """Sends this, and then nothing until the other side gives up."""

    def stay_silent(connection, request):
        connection.sendall(answer)
        connection.recv(1)
        return False

    return stay_silent


def in_turn(*answers):
    """Each request gets the next of these."""
    turns = defaultdict(lambda: iter(answers))

    def answer(connection, request):
        connection.sendall(next(turns[request.method]))
        return True

    return answer
