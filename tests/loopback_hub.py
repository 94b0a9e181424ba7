"""A Hugging Face hub on 127.0.0.1 for tests, spoken to by the real client; standard library only.

It knows what a model's download and upload need: resolve with commits, ETags and ranges, redirects to a second origin,
tokens, and the commit protocol with LFS. Faults are switched on by setting attributes of `LoopbackHub`.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType

RESOLVE = re.compile(r"/(?P<repo>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<file>.+)")
PREUPLOAD = re.compile(r"/api/models/(?P<repo>[^/]+/[^/]+)/preupload/(?P<revision>[^/?]+)")
COMMIT = re.compile(r"/api/models/(?P<repo>[^/]+/[^/]+)/commit/(?P<revision>[^/?]+)")
LFS_BATCH = re.compile(r"/(?P<repo>[^/]+/[^/]+)\.git/info/lfs/objects/batch")
BLOB = re.compile(r"/blobs/(?P<digest>[0-9a-f]{64})")


@dataclass
class Repo:
    """One model repository: commit -> file name -> content; branches; who may read."""

    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    token: str | None = None
    gated: bool = False

    def commit(self, files: dict[str, bytes], branch: str = "main") -> str:
        """Put files on top of a branch; returns the new commit, 40 hex digits."""
        tree = {**self.commits.get(self.refs.get(branch, ""), {}), **files}
        summary = repr(
            (len(self.commits), sorted((name, hashlib.sha256(data).hexdigest()) for name, data in tree.items()))
        )
        sha = hashlib.sha1(summary.encode()).hexdigest()  # noqa: S324  # as git names commits
        self.commits[sha] = tree
        self.refs[branch] = sha
        return sha


@dataclass(frozen=True)
class Request:
    """One request as it came in."""

    origin: str
    method: str
    path: str
    authorization: str | None
    range: str | None


class LoopbackHub:
    """The hub and its file store, two origins on 127.0.0.1, running while the context is open.

    Attributes:
        repos: by "user/name".
        requests: everything that was asked, in order.
        redirect: send downloads to the second origin, as the hub does for large files.
        status: answer every request to resolve with this error.
        send_instead: content that a download gets in place of the real one, under the real ETag.
        cut_after: close the connection after so many bytes of content, once per entry (the first is used first).
        hang: event; while it is set and not None, resolve requests wait for it instead of being answered.
        pause: told the method and how much content was sent: before an answer, and in the middle of a file.
    """

    def __init__(self) -> None:
        self.repos: dict[str, Repo] = {}
        self.requests: list[Request] = []
        self.uploads: dict[str, bytes] = {}
        self.redirect = False
        self.status: int | None = None
        self.send_instead: bytes | None = None
        self.cut_after: list[int] = []
        self.hang: threading.Event | None = None
        self.pause: Callable[[str, int], None] = lambda _method, _sent: None
        self.write_token: str | None = None
        self._servers = [self._serve("hub"), self._serve("store")]
        self.url, self.store_url = (f"http://127.0.0.1:{server.server_address[1]}" for server in self._servers)

    def _serve(self, origin: str) -> ThreadingHTTPServer:
        handler = type("Handler", (_Handler,), {"hub": self, "origin": origin})
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return server

    def repo(self, name: str) -> Repo:
        """The repository of that name; made if it is not there."""
        return self.repos.setdefault(name, Repo())

    def methods(self) -> list[str]:
        """What was asked, by method and origin, for example ["HEAD hub", "GET store"]."""
        return [f"{request.method} {request.origin}" for request in self.requests]

    def environment(self, home: Path) -> dict[str, str]:
        """The environment of a process that knows this hub only, with its cache and the weights of bbcu in `home`.

        Without telemetry, because the client would ask about coding agents once a day.
        """
        foreign = ("HF_", "BBCU_", "HUGGING_FACE_")
        kept = {n: v for n, v in os.environ.items() if not n.startswith(foreign) and not n.lower().endswith("_proxy")}
        return {
            **kept,
            "HF_ENDPOINT": self.url,
            "HF_HOME": str(home / "hf"),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "BBCU_WEIGHTS_DIR": str(home),
        }

    def __enter__(self) -> LoopbackHub:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.hang is not None:
            self.hang.set()
        for server in self._servers:
            server.shutdown()
            server.server_close()


class _Handler(BaseHTTPRequestHandler):
    """Answers for one origin; `hub` and `origin` are set on the subclass."""

    protocol_version = "HTTP/1.1"
    hub: LoopbackHub
    origin: str

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002
        """Stay silent."""

    def do_HEAD(self) -> None:
        self._note()
        self._resolve()

    def do_GET(self) -> None:
        self._note()
        if self.path == "/api/whoami-v2":
            self._whoami()
        else:
            self._resolve()

    def do_PUT(self) -> None:
        self._note()
        digest = BLOB.fullmatch(self.path)
        content = self._content()
        if digest is None or hashlib.sha256(content).hexdigest() != digest["digest"]:
            self._answer(400)
            return
        self.hub.uploads[digest["digest"]] = content
        self._answer(200)

    def do_POST(self) -> None:
        self._note()
        content = self._content()
        if self.hub.write_token and self.headers.get("Authorization") != f"Bearer {self.hub.write_token}":
            self._answer(403, {"error": "no write access"})
        elif self.path == "/api/repos/create":
            asked = json.loads(content)
            name = "/".join(part for part in (asked.get("organization") or "me", asked["name"]) if part)
            if name in self.hub.repos:
                self._answer(409, {"url": f"{self.hub.url}/{name}"})
                return
            self.hub.repo(name).commit({".gitattributes": b""})
            self._answer(200, {"url": f"{self.hub.url}/{name}", "name": name})
        elif self.path == "/api/validate-yaml":
            self._answer(200, {"errors": [], "warnings": []})
        elif PREUPLOAD.match(self.path):
            files = [
                {
                    "path": file["path"],
                    "uploadMode": "lfs" if file["path"].endswith(".safetensors") else "regular",
                    "shouldIgnore": False,
                }
                for file in json.loads(content)["files"]
            ]
            self._answer(200, {"files": files})
        elif LFS_BATCH.match(self.path):
            objects = [
                {**wanted, "actions": {"upload": {"href": f"{self.hub.store_url}/blobs/{wanted['oid']}", "header": {}}}}
                for wanted in json.loads(content)["objects"]
            ]
            self._answer(200, {"transfer": "basic", "objects": objects})
        elif found := COMMIT.match(self.path):
            self._commit(found["repo"], found["revision"], content)
        else:
            self._answer(404)

    def _note(self) -> None:
        headers = self.headers
        self.hub.requests.append(
            Request(self.origin, self.command, self.path, headers.get("Authorization"), headers.get("Range"))
        )

    def _content(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        content = b""
        while size := int(self.rfile.readline(), 16):
            content += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return content

    def _answer(self, status: int, value: object = None, headers: dict[str, str] | None = None) -> None:
        body = b"" if value is None else json.dumps(value).encode()
        self.send_response(status)
        for name, text in {
            "Content-Length": str(len(body)),
            "Content-Type": "application/json",
            **(headers or {}),
        }.items():
            self.send_header(name, text)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _error(self, status: int, code: str) -> None:
        self._answer(status, {"error": code}, {"X-Error-Code": code, "X-Error-Message": code})

    def _whoami(self) -> None:
        if self.headers.get("Authorization") is None:
            self._answer(401, {"error": "no token"})
        else:
            self._answer(200, {"name": "me", "type": "user", "auth": {"accessToken": {"role": "write"}}})

    def _resolve(self) -> None:
        """HEAD or GET of a file, by repository and revision (hub) or by its hash (store)."""
        hub = self.hub
        if hub.hang is not None:
            hub.hang.wait(20)
        hub.pause(self.command, 0)
        if hub.status is not None:
            self._answer(hub.status, {"error": "as the test wants"})
            return
        if blob := BLOB.fullmatch(self.path):
            contents = [data for repo in hub.repos.values() for tree in repo.commits.values() for data in tree.values()]
            content = next((data for data in contents if hashlib.sha256(data).hexdigest() == blob["digest"]), None)
            if content is None:
                self._answer(404)
            else:
                self._send(content, {})
            return
        found = RESOLVE.fullmatch(self.path)
        repo = hub.repos.get(found["repo"]) if found else None
        if found is None or repo is None:
            self._error(401, "RepoNotFound")  # the hub does not tell a missing repository from a private one
            return
        if repo.token is not None and self.headers.get("Authorization") != f"Bearer {repo.token}":
            self._error(403 if repo.gated else 401, "GatedRepo" if repo.gated else "RepoNotFound")
            return
        commit = repo.refs.get(found["revision"], found["revision"])
        if commit not in repo.commits:
            self._error(404, "RevisionNotFound")
            return
        content = repo.commits[commit].get(found["file"])
        if content is None:
            self._error(404, "EntryNotFound")
            return
        digest = hashlib.sha256(content).hexdigest()
        headers = {"X-Repo-Commit": commit, "ETag": f'"{digest}"'}
        if hub.redirect:
            linked = {"X-Linked-Etag": f'"{digest}"', "X-Linked-Size": str(len(content))}
            self._answer(302, None, {**headers, **linked, "Location": f"{hub.store_url}/blobs/{digest}"})
        else:
            self._send(content, headers)

    def _send(self, content: bytes, headers: dict[str, str]) -> None:
        """File content, or the part of it that a Range asks for; faults apply to GET."""
        hub = self.hub
        body = content if hub.send_instead is None or self.command == "HEAD" else hub.send_instead
        begin = 0
        if asked := self.headers.get("Range"):
            begin = int(asked.removeprefix("bytes=").split("-")[0])
            headers = {**headers, "Content-Range": f"bytes {begin}-{len(body) - 1}/{len(body)}"}
        self.send_response(206 if asked else 200)
        for name, text in {**headers, "Content-Length": str(len(body) - begin), "Accept-Ranges": "bytes"}.items():
            self.send_header(name, text)
        self.end_headers()
        if self.command == "HEAD":
            return
        part = body[begin:]
        if hub.cut_after:
            part = part[: hub.cut_after.pop(0)]
            self.close_connection = True
        middle = len(part) // 2
        self.wfile.write(part[:middle])
        hub.pause(self.command, middle)
        self.wfile.write(part[middle:])

    def _commit(self, name: str, branch: str, content: bytes) -> None:
        files = {}
        for line in content.decode().splitlines():
            row = json.loads(line)
            value = row["value"]
            if row["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif row["key"] == "lfsFile":
                files[value["path"]] = self.hub.uploads[value["oid"]]
        sha = self.hub.repo(name).commit(files, branch)
        self._answer(
            200,
            {"success": True, "commitOid": sha, "commitUrl": f"{self.hub.url}/{name}/commit/{sha}", "hookOutput": ""},
        )
