"""A Hub on loopback: enough of its API for the stock huggingface_hub client to create, upload, list, tag and
download. Repositories live in memory; `serve(root)` begins with the folders `root/user/name`.

Tokens: `hf_write` may write, `hf_read` may not, others are refused; without one public repositories are read.
`hub.broken` names what fails: "lfs" the upload of a large file, "commit" the commit.

    python tests/mini_hub.py PORT       serves an empty one until it is stopped
"""

import base64
import hashlib
import json
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import RLock, Thread
from urllib.parse import parse_qs, unquote, urlsplit

LARGE = (".safetensors", ".bin", ".parquet", ".mp4", ".png")
MOST_REGULAR = 10_000_000
ROLES = {"hf_write": "write", "hf_read": "read"}
USER = "user"
REPO = r"/(?:(?P<kind>dataset)s/)?(?P<repo>[^/]+/[^/]+)"
ROUTES = (
    ("GET", r"/api/whoami-v2", "whoami"),
    ("POST", r"/api/validate-yaml", "validate"),
    ("POST", r"/api/repos/create", "create"),
    ("PUT", r"/lfs/(?P<oid>[0-9a-f]{64})", "put_lfs"),
    ("POST", REPO + r"\.git/info/lfs/objects/batch", "batch_lfs"),
    ("GET", REPO + r"/resolve/(?P<revision>[^/]+)/(?P<path>.+)", "resolve"),
    ("GET", r"/api/(?P<kind>model|dataset)s/(?P<repo>[^/]+/[^/]+)(?:/revision/(?P<revision>.+))?", "info"),
    ("GET", r"/api/(?P<kind>model|dataset)s/(?P<repo>[^/]+/[^/]+)/refs", "refs"),
    ("GET", r"/api/(?P<kind>model|dataset)s/(?P<repo>[^/]+/[^/]+)/commits/(?P<revision>.+)", "commits"),
    ("GET", r"/api/(?P<kind>model|dataset)s/(?P<repo>[^/]+/[^/]+)/tree/(?P<revision>[^/]+)(?:/.*)?", "tree"),
    ("POST", r"/api/(?P<kind>model|dataset)s/(?P<repo>[^/]+/[^/]+)/paths-info/(?P<revision>.+)", "paths"),
    ("POST", r"/api/(?P<kind>model|dataset)s/(?P<repo>[^/]+/[^/]+)/preupload/(?P<revision>.+)", "preupload"),
    ("POST", r"/api/(?P<kind>model|dataset)s/(?P<repo>[^/]+/[^/]+)/commit/(?P<revision>.+)", "commit"),
    ("POST", r"/api/(?P<kind>model|dataset)s/(?P<repo>[^/]+/[^/]+)/branch/(?P<name>.+)", "branch"),
    ("POST", r"/api/(?P<kind>model|dataset)s/(?P<repo>[^/]+/[^/]+)/tag/(?P<revision>.+)", "tag"),
    ("DELETE", r"/api/(?P<kind>model|dataset)s/(?P<repo>[^/]+/[^/]+)/tag/(?P<name>.+)", "untag"),
)  # fmt: skip


class Refused(Exception):
    """A status other than 200, with the Hub's error code, the commit it is about, and the body's fields."""

    def __init__(self, status: int, message: str, code: str = "", commit: str = "", **fields: str) -> None:
        super().__init__(message)
        headers = {"X-Error-Code": code, "X-Error-Message": message if code else "", "X-Repo-Commit": commit}
        self.status, self.fields = status, fields | {"error": message}
        self.headers = {name: value for name, value in headers.items() if value}


@dataclass
class Repo:
    """One repository.

    Attributes:
        commits: sha -> (title, parent, path -> (content, whether by LFS)).
    """

    private: bool = False
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    commits: dict[str, tuple[str, str | None, dict[str, tuple[bytes, bool]]]] = field(default_factory=dict)

    def commit(self, title: str, files: dict[str, tuple[bytes, bool]], branch: str = "main") -> str:
        parent = self.branches.get(branch)
        digest = hashlib.sha1(f"{title}{parent}{len(self.commits)}".encode())
        for path, (content, _) in sorted(files.items()):
            digest.update(path.encode() + content)
        sha = digest.hexdigest()
        self.commits[sha], self.branches[branch] = (title, parent, files), sha
        return sha

    def files(self, revision: str = "main") -> dict[str, bytes]:
        return {path: content for path, (content, _) in self.commits[self.sha(revision)][2].items()}

    def sha(self, revision: str | None) -> str:
        revision = revision or "main"
        sha = self.branches.get(revision) or self.tags.get(revision) or revision
        if sha not in self.commits:
            raise Refused(404, "Revision not found", "RevisionNotFound")
        return sha


class MiniHub(ThreadingHTTPServer):
    """The server.

    Attributes:
        requests: what was asked for, as (method, path, status).
        repos: (kind, id) -> repository.
    """

    daemon_threads = True

    def __init__(self, root: Path | None = None, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.requests: list[tuple[str, str, int]] = []
        self.repos: dict[tuple[str, str], Repo] = {}
        self.large: dict[str, bytes] = {}
        self.broken: set[str] = set()
        self.lock = RLock()
        for folder in sorted(root.glob("*/*")) if root else ():
            self.add(folder.relative_to(root).as_posix(), folder)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def add(self, repo: str, folder: Path, kind: str = "model") -> Repo:
        """Publish the files of a folder."""
        added = self.repos.setdefault((kind, repo), Repo())
        files = {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
        added.commit("upload", {name: (data, name.endswith(LARGE)) for name, data in files.items()})
        return added


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: MiniHub

    def log_message(self, *args) -> None:
        """Silent: `requests` has it all."""

    def answer(self) -> None:
        parts = urlsplit(self.path)
        self.query, self.content = parse_qs(parts.query), self.body()
        method = "GET" if self.command == "HEAD" else self.command
        try:
            for wanted, pattern, name in ROUTES:
                if wanted == method and (found := re.fullmatch(pattern, parts.path)):
                    fields = {k: unquote(v) if v else v for k, v in found.groupdict().items()}
                    with self.server.lock:
                        self.json(getattr(self, f"on_{name}")(**fields))
                    return
            raise Refused(404, f"no route {parts.path}")
        except Refused as error:
            self.reply(error.status, json.dumps(error.fields).encode(), error.headers)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = answer

    # What is asked

    def on_whoami(self) -> dict:
        role = self.role()
        if role is None:
            raise Refused(401, "Invalid username or password.")
        token = {"accessToken": {"role": role, "displayName": "test"}}
        return {"type": "user", "name": USER, "id": "0", "orgs": [], "auth": {"type": "access_token"} | token}

    def on_validate(self) -> dict:
        return {"errors": [], "warnings": []}

    def on_create(self) -> dict:
        self.may_write()
        asked = json.loads(self.content)
        key = asked.get("type") or "model", f"{asked.get('organization') or USER}/{asked['name']}"
        if not key[1].startswith(f"{USER}/"):
            raise Refused(403, "You don't have the rights to create a model under this namespace")
        url = f"{self.server.url}/{'' if key[0] == 'model' else key[0] + 's/'}{key[1]}"
        if key in self.server.repos:
            raise Refused(409, "You already created this repo", url=url, name=key[1], id=key[1])
        private = bool(asked.get("private")) or asked.get("visibility") == "private"
        self.server.repos[key] = Repo(private=private)
        self.server.repos[key].commit("initial commit", {})
        return {"url": url, "name": key[1], "id": key[1]}

    def on_put_lfs(self, oid: str) -> dict:
        if "lfs" in self.server.broken:
            raise Refused(400, "the storage is broken")
        assert hashlib.sha256(self.content).hexdigest() == oid
        self.server.large[oid] = self.content
        return {}

    def on_batch_lfs(self, kind: str | None, repo: str) -> dict:
        self.may_write()
        objects = json.loads(self.content)["objects"]
        for entry in objects:
            if entry["oid"] not in self.server.large:
                upload = {"href": f"{self.server.url}/lfs/{entry['oid']}", "header": {}}
                entry["actions"] = {"upload": upload}
        return {"transfer": "basic", "objects": objects}

    def on_resolve(self, kind: str | None, repo: str, revision: str, path: str) -> None:
        found = self.repo(kind, repo)
        sha = found.sha(revision)
        files = found.commits[sha][2]
        if path not in files:
            raise Refused(404, "Entry not found", "EntryNotFound", sha)
        content, large = files[path]
        headers = {"X-Repo-Commit": sha, "ETag": f'"{_oid(content, large)}"'}
        if large:
            headers |= {"X-Linked-ETag": headers["ETag"], "X-Linked-Size": str(len(content))}
        self.reply(200, content, headers)

    def on_info(self, kind: str, repo: str, revision: str | None = None) -> dict:
        found = self.repo(kind, repo)
        sha = found.sha(revision)
        files = [{"rfilename": path} for path in sorted(found.commits[sha][2])]
        return {"id": repo, "sha": sha, "private": found.private, "siblings": files, "tags": []}

    def on_refs(self, kind: str, repo: str) -> dict:
        found = self.repo(kind, repo)
        return {
            name: [{"name": n, "ref": f"refs/{short}/{n}", "targetCommit": sha} for n, sha in refs.items()]
            for name, short, refs in (("branches", "heads", found.branches), ("tags", "tags", found.tags))
        } | {"converts": []}

    def on_commits(self, kind: str, repo: str, revision: str) -> list:
        found = self.repo(kind, repo)
        sha, out = found.sha(revision), []
        while sha:
            title, parent, _ = found.commits[sha]
            date = "2026-01-01T00:00:00.000Z"
            out.append({"id": sha, "title": title, "message": "", "authors": [], "date": date})
            sha = parent
        return out

    def on_tree(self, kind: str, repo: str, revision: str) -> list:
        found = self.repo(kind, repo)
        return [_entry(p, *file) for p, file in sorted(found.commits[found.sha(revision)][2].items())]

    def on_paths(self, kind: str, repo: str, revision: str) -> list:
        found = self.repo(kind, repo)
        files = found.commits[found.sha(revision)][2]
        as_json = "json" in self.headers.get("Content-Type", "")
        asked = json.loads(self.content) if as_json else parse_qs(self.content.decode())
        return [_entry(path, *files[path]) for path in asked["paths"] if path in files]

    def on_preupload(self, kind: str, repo: str, revision: str) -> dict:
        self.may_write()
        found = self.repo(kind, repo)
        current = found.commits[found.sha(revision)][2]
        out = []
        for file in json.loads(self.content)["files"]:
            path = file["path"]
            large = path.endswith(LARGE) or file["size"] > MOST_REGULAR
            oid = _oid(*current[path]) if path in current else None
            out.append(
                {"path": path, "uploadMode": "lfs" if large else "regular", "shouldIgnore": False, "oid": oid}
            )
        return {"files": out}  # fmt: skip

    def on_commit(self, kind: str, repo: str, revision: str) -> dict:
        self.may_write()
        found = self.repo(kind, repo)
        files, title = dict(found.commits[found.sha(revision)][2]), ""
        for line in map(json.loads, self.content.splitlines()):
            key, value = line["key"], line["value"]
            if key == "header":
                title = value["summary"]
            elif key == "file":
                files[value["path"]] = base64.b64decode(value["content"]), False
            elif key == "lfsFile":
                files[value["path"]] = self.server.large[value["oid"]], True
            elif key == "deletedFile":
                del files[value["path"]]
        if "commit" in self.server.broken:
            raise Refused(500, "the commit is broken")
        sha = found.commit(title, files, revision)
        return {"success": True, "commitOid": sha, "commitUrl": f"{self.server.url}/{repo}/commit/{sha}"}

    def on_branch(self, kind: str, repo: str, name: str) -> dict:
        self.may_write()
        found = self.repo(kind, repo)
        if name in found.branches:
            raise Refused(409, "Reference already exists")
        found.branches[name] = found.sha(json.loads(self.content or b"{}").get("startingPoint"))
        return {}

    def on_tag(self, kind: str, repo: str, revision: str) -> dict:
        self.may_write()
        found, name = self.repo(kind, repo), json.loads(self.content)["tag"]
        if name in found.tags:
            raise Refused(409, "Reference already exists")
        found.tags[name] = found.sha(revision)
        return {}

    def on_untag(self, kind: str, repo: str, name: str) -> dict:
        self.may_write()
        if self.repo(kind, repo).tags.pop(name, None) is None:
            raise Refused(404, "Tag not found", "RevisionNotFound")
        return {}

    # Who asks, and the answer

    def role(self) -> str | None:
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if token and token not in ROLES:
            raise Refused(401, "Invalid user token.")
        return ROLES.get(token)

    def may_write(self) -> None:
        role = self.role()
        if role != "write":
            raise Refused(403 if role else 401, "You need a token with the right to write")

    def repo(self, kind: str | None, repo: str) -> Repo:
        role, found = self.role(), self.server.repos.get((kind or "model", repo))
        if found is None or (found.private and role is None):
            raise Refused(404, "Repository not found", "RepoNotFound")
        return found

    def body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        out = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            out += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return out

    def json(self, answer: dict | list | None) -> None:
        """Send what a handler returned; None where it has replied itself."""
        if answer is not None:
            self.reply(200, json.dumps(answer).encode(), {"Content-Type": "application/json"})

    def reply(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.server.requests.append((self.command, self.path, status))
        self.send_response(status)
        for name, value in (headers | {"Content-Length": str(len(content))}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


def _oid(content: bytes, large: bool) -> str:
    """The name of a blob: its hash as git's, or LFS's."""
    if large:
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _entry(path: str, content: bytes, large: bool) -> dict:
    out = {"type": "file", "path": path, "size": len(content), "oid": _oid(content, False)}
    if large:
        out["lfs"] = {"oid": _oid(content, True), "size": len(content), "pointerSize": 130}
    return out


@contextmanager
def serve(root: Path | None = None) -> Iterator[MiniHub]:
    """A hub on a free port, in a thread, until the block is left."""
    with MiniHub(root) as hub:
        thread = Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield hub
        finally:
            hub.shutdown()
            thread.join()


if __name__ == "__main__":
    with MiniHub(port=int(sys.argv[1])) as hub:
        print(hub.url, flush=True)
        hub.serve_forever()
