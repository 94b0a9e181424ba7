"""A real S3 service on 127.0.0.1 in a process of its own: moto's server, with faults that a test can switch on.

`python loopback_store.py` serves and prints its port. The bucket "denied" answers 403. `POST /-/every/N` lets every
N-th request from then on fail with 503 (0: none), as a store does that is asked too much.
"""

from __future__ import annotations

import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ERROR = '<?xml version="1.0"?><Error><Code>{0}</Code><Message>{1}</Message></Error>'


class Store:
    """The service while it runs."""

    def __init__(self, url: str) -> None:
        self.url = url

    def fail_every(self, number: int) -> None:
        """Let every N-th request fail with 503."""
        request = urllib.request.Request(f"{self.url}/-/every/{number}", method="POST")  # noqa: S310 - loopback
        urllib.request.urlopen(request, timeout=30).close()  # noqa: S310

    def environment(self) -> dict[str, str]:
        """What a client finds the service by."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "NO_PROXY": "127.0.0.1",
            "no_proxy": "127.0.0.1",
        }


@contextmanager
def loopback_store() -> Iterator[Store]:
    """Start the service, and end it."""
    command = [sys.executable, str(Path(__file__).resolve())]
    environment = {**os.environ, "PYTHONWARNINGS": "ignore"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout
        port = process.stdout.readline().strip()
        assert port.isdigit(), "the store did not start"
        try:
            yield Store(f"http://127.0.0.1:{port}")
        finally:
            process.kill()


def serve() -> None:
    """Run until killed."""
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import WSGIRequestHandler, make_server

    class Quiet(WSGIRequestHandler):
        protocol_version = "HTTP/1.1"

        def log(self, kind: str, message: str, *args: object) -> None:
            pass

    moto = DomainDispatcherApplication(create_backend_app)
    every, asked = 0, 0

    def application(environ, start_response):
        nonlocal every, asked
        path = environ["PATH_INFO"]

        def error(status: str, code: str, message: str) -> list[bytes]:
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            body = ERROR.format(code, message).encode()
            start_response(status, [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))])
            return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]

        if path.startswith("/-/every/"):
            every, asked = int(path.rsplit("/", 1)[1]), 0
            start_response("204 No Content", [])
            return []
        if path.startswith("/denied"):
            return error("403 Forbidden", "AccessDenied", "Access Denied")
        asked += 1
        if every and asked % every == 0:
            return error("503 Slow Down", "SlowDown", "Please reduce your request rate.")
        return moto(environ, start_response)

    server = make_server("127.0.0.1", 0, application, threaded=True, request_handler=Quiet)
    print(server.server_port, flush=True)
    server.serve_forever()


if __name__ == "__main__":
    serve()
