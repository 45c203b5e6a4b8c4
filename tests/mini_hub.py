"""A Hub on loopback that can be read from: it answers what `hf_hub_download` asks for, and no more."""

import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import unquote, urlsplit

FILE = re.compile(r"/(?P<repo>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<file>.+)")
MODEL = re.compile(r"/api/models/(?P<repo>[^/]+/[^/]+)(?:/revision/(?P<revision>[^/]+))?")


class MiniHub(ThreadingHTTPServer):
    """Serves the folders `root/user/name` as model repositories with the one revision `main`.

    Attributes:
        requests: what was asked for, as (method, path, status).
    """

    daemon_threads = True

    def __init__(self, root: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.root, self.requests = root, []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: MiniHub

    def log_message(self, *args) -> None:
        """Silent: `requests` has it all."""

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        if found := FILE.fullmatch(path):
            self.send_file(**found.groupdict())
        elif found := MODEL.fullmatch(path):
            self.send_model(**found.groupdict())
        else:
            self.reply(404, b"", {"X-Error-Code": "NoSuchRoute"})

    do_HEAD = do_GET

    def send_file(self, repo: str, revision: str, file: str) -> None:
        commit = self.commit(repo, revision)
        if commit is None:
            return
        headers, place = {"X-Repo-Commit": commit}, self.server.root / repo / file
        if not place.is_file():
            self.reply(404, b"", headers | {"X-Error-Code": "EntryNotFound"})
            return
        content = place.read_bytes()
        self.reply(200, content, headers | {"ETag": f'"{hashlib.sha256(content).hexdigest()}"'})

    def send_model(self, repo: str, revision: str | None) -> None:
        commit = self.commit(repo, revision or "main")
        if commit is None:
            return
        files = [{"rfilename": path.name} for path in sorted((self.server.root / repo).iterdir())]
        self.reply(200, json.dumps({"id": repo, "sha": commit, "siblings": files}).encode(), {})

    def commit(self, repo: str, revision: str) -> str | None:
        """The commit of a revision; where there is none the refusal is sent and None returned."""
        folder = self.server.root / repo
        if not folder.is_dir():
            self.reply(404, b"", {"X-Error-Code": "RepoNotFound"})
            return None
        digest = hashlib.sha1()
        for path in sorted(folder.iterdir()):
            digest.update(path.name.encode() + path.read_bytes())
        if revision not in ("main", digest.hexdigest()):
            self.reply(404, b"", {"X-Error-Code": "RevisionNotFound"})
            return None
        return digest.hexdigest()

    def reply(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.server.requests.append((self.command, self.path, status))
        self.send_response(status)
        for name, value in (headers | {"Content-Length": str(len(content))}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)


@contextmanager
def serve(root: Path) -> Iterator[MiniHub]:
    """A hub on a free port, in a thread, until the block is left."""
    with MiniHub(root) as hub:
        thread = Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield hub
        finally:
            hub.shutdown()
            thread.join()
