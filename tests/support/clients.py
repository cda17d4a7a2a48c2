"""GETFILE clients, and the replies that they expect."""

import socket
from concurrent.futures import ThreadPoolExecutor


class Connection:
    """A GETFILE client that behaves as badly as a test wants."""

    def __init__(self, port, timeout=60):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def send(self, data):
        self.socket.sendall(data)
        return self

    def rest(self):
        """All that comes until the connection ends; a reset ends it, too."""
        received = bytearray()
        try:
            while piece := self.socket.recv(1 << 20):
                received += piece
        except ConnectionResetError:
            pass
        return bytes(received)


def get(port, path):
    """The whole reply to one request."""
    with Connection(port) as connection:
        return connection.send(f"GETFILE GET {path}\r\n\r\n".encode()).rest()


def get_all(port, paths, at_once):
    """The replies to requests for these paths, some at a time."""
    with ThreadPoolExecutor(at_once) as threads:
        return list(threads.map(lambda path: get(port, path), paths))


# The replies of the dialect `getfile`.
NOT_FOUND, ERROR = b"GETFILE FILE_NOT_FOUND\r\n\r\n", b"GETFILE ERROR\r\n\r\n"


def whole(content):
    """The reply with this content."""
    return b"GETFILE OK %d\r\n\r\n" % len(content) + content
