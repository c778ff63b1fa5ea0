"""A webhook on this machine: what it got and when, and what it answers."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Hook:
    """Attributes: statuses: answers of the next requests; 204 after them. arrived_ns: wall time of each request."""

    url: str = ""
    got: list[dict[str, Any]] = field(default_factory=list)
    arrived_ns: list[int] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)

    def states(self) -> list[str]:
        return [one["state"] for one in self.got]


@contextmanager
def serving() -> Iterator[Hook]:
    hook = Hook()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            arrived = time.time_ns()
            document = json.loads(self.rfile.read(int(self.headers["content-length"])))
            hook.arrived_ns.append(arrived)
            hook.got.append(document)
            self.send_response(hook.statuses.pop(0) if hook.statuses else 204)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hook.url = f"http://127.0.0.1:{server.server_port}/hook/4711"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield hook
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def wait_until(there: Callable[[], bool], wait_s: float = 40) -> None:
    deadline = time.monotonic() + wait_s
    while not there():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)
