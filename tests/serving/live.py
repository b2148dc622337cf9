"""The service on a port, in a thread of the test."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from crossray.serving.run import server_of
from crossray.serving.settings import Settings


@contextmanager
def running(settings: Settings) -> Iterator[str]:
    """Address of a service that ends with the block."""
    server = server_of(settings, 0)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            thread.join(0.02)
            assert thread.is_alive()
        scheme = "http" if settings.certificate is None else "https"
        yield f"{scheme}://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(60)
