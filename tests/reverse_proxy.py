"""A reverse proxy in front of the page, as the nginx block of docs/operations.md sets it up.

It serves the page below a path, takes that path away, keeps the Host that it was asked by, and
hands answers on as they come, since the page's events are one long answer.
"""

import threading
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self

HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length"}


class ReverseProxy:
    """Serves `path` from 127.0.0.1:`port` of another server; use as a context manager."""

    def __init__(self, path: str, port: int) -> None:
        self.asked: list[str] = []
        """Paths of the requests that reached the other server."""
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if not self.path.startswith(f"{path}/"):
                    self.send_error(404)
                    return
                proxy.asked.append(self.path)
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                with_upstream(self, HTTPConnection("127.0.0.1", port, timeout=60), body)

            do_POST = do_GET  # noqa: N815

            def log_message(self, *_: object) -> None:
                """Tests read `asked` instead."""

        def with_upstream(ours: Handler, theirs: HTTPConnection, body: bytes) -> None:
            theirs.request(ours.command, ours.path.removeprefix(path), body, dict(ours.headers))
            answer = theirs.getresponse()
            ours.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in HOP_BY_HOP:
                    ours.send_header(name, value)
            ours.end_headers()
            while part := answer.read1():
                ours.wfile.write(part)
                ours.wfile.flush()
            theirs.close()

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._server.server_port

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
