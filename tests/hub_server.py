"""A small Hub on loopback, for the real ``huggingface_hub`` client: repositories of models and of data sets, tokens, faults on demand.

Standard library only. It speaks what the client asks for when it creates, publishes, lists and downloads::

    hub = HubServer()                                   # listens on a free port of 127.0.0.1; hub.url is HF_ENDPOINT
    hub.start()
    token = hub.token("org")                            # may write there; hub.token("org", role="read") may not
    sha = hub.commit("org/name", {"128b/config.json": b"{}"}, kind="dataset")
    hub.fail("GET .*/model.safetensors", cut=100)       # the next such answer breaks off after 100 bytes
    hub.calls("GET .*/resolve/.*")                      # what was asked for

Contents are kept in memory and may be changed by tests behind the client's back: :meth:`HubServer.tamper`, :meth:`HubServer.tag`.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import json
import re
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

REGULAR_BYTES = 10 << 20  # from this size on every file goes through LFS
LFS_ENDINGS = (".safetensors", ".bin", ".pt", ".npy", ".png", ".pkl", ".zip")
CREATED = "2026-01-01T00:00:00.000Z"
KINDS = {"models": "model", "datasets": "dataset"}


@dataclass(frozen=True)
class File:
    """Content of a file at a commit."""

    data: bytes
    lfs: bool

    @functools.cached_property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()

    @functools.cached_property
    def oid(self) -> str:
        """What the client knows a file by: git's digest of a regular one, SHA-256 of one in LFS."""
        return self.sha256 if self.lfs else hashlib.sha1(b"blob %d\0" % len(self.data) + self.data).hexdigest()


@dataclass
class Repository:
    """Commits, oldest first, with the files of each; branches and tags by name."""

    private: bool = False
    commits: dict[str, dict[str, File]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)

    def resolve(self, revision: str) -> str | None:
        """Commit of a branch, a tag, a commit or the first seven or more digits of one."""
        for names in (self.branches, self.tags):
            if revision in names:
                return names[revision]
        found = [sha for sha in self.commits if sha.startswith(revision)] if len(revision) >= 7 else []
        return found[0] if len(found) == 1 else None

    def commit(self, files: dict[str, File], branch: str = "main") -> str:
        """Make these all the files of a branch."""
        content = json.dumps([len(self.commits), sorted((path, file.oid) for path, file in files.items())])
        sha = hashlib.sha1(content.encode()).hexdigest()
        self.commits[sha] = files
        self.branches[branch] = sha
        return sha


@dataclass
class Account:
    """Whom a token stands for."""

    namespace: str
    role: str


@dataclass
class Fault:
    """What goes wrong with requests that match.

    ``status`` with ``headers`` is answered instead; ``cut`` ends the connection after so many bytes of the body; ``corrupt`` changes a
    byte of it; ``hold`` is waited for, at most ``delay`` seconds.
    """

    pattern: str
    times: int
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    cut: int | None = None
    corrupt: bool = False
    hold: threading.Event | None = None
    delay: float = 10.0


class RefusalError(Exception):
    """An error that the client is told."""

    def __init__(
        self, status: int, message: str, code: str | None = None, headers: Mapping[str, str] | None = None, **body: str
    ) -> None:
        super().__init__(message)
        self.status, self.body = status, {"error": message, **body}
        self.headers = {
            "X-Error-Message": message,
            **({} if code is None else {"X-Error-Code": code}),
            **(headers or {}),
        }


class HubServer:
    """The server and all it holds."""

    def __init__(self) -> None:
        self._server = _Server(self)
        self._thread: threading.Thread | None = None
        self.lock = threading.RLock()
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self.clear()

    def clear(self) -> None:
        """Forget everything."""
        with self.lock:
            self.repositories: dict[tuple[str, str], Repository] = {}
            self.objects: dict[str, bytes] = {}  # LFS, by SHA-256
            self.accounts: dict[str, Account] = {}
            self.faults: list[Fault] = []
            self.requests: list[tuple[str, str | None]] = []  # "METHOD /path", token

    def start(self) -> None:
        """Answer from now on; once started, again does nothing."""
        if self._thread is None:
            self._thread = threading.Thread(
                target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True
            )
            self._thread.start()

    def close(self) -> None:
        """Stop answering and free the port."""
        if self._thread is not None:
            self._server.shutdown()
            self._thread.join()
        self._server.server_close()

    # for tests ---------------------------------------------------------------------------------------------------------------

    def token(self, namespace: str, role: str = "write") -> str:
        """A new token of a user or organisation.

        :param role: ``write`` or ``read``; both see the namespace's private repositories
        """
        with self.lock:
            token = f"hf_{role}{len(self.accounts)}{'x' * 24}"
            self.accounts[token] = Account(namespace, role)
        return token

    def repository(self, name: str, kind: str = "model") -> Repository:
        """The repository of a name, which must exist."""
        return self.repositories[kind, name]

    def create(self, name: str, kind: str = "model", private: bool = False) -> Repository:
        """A new repository, with the one file that all have at the beginning."""
        repository = Repository(private)
        repository.commit({".gitattributes": File(b"*.safetensors filter=lfs\n", False)})
        with self.lock:
            self.repositories[kind, name] = repository
        return repository

    def commit(self, name: str, files: Mapping[str, bytes], kind: str = "model") -> str:
        """Add files to branch ``main`` of a repository, which is created if there is none; names are taken as they are."""
        with self.lock:
            repository = self.repositories.get((kind, name)) or self.create(name, kind)
            added = {path: File(data, upload_mode(path, len(data)) == "lfs") for path, data in files.items()}
            self.objects |= {file.sha256: file.data for file in added.values() if file.lfs}
            return repository.commit({**repository.commits[repository.branches["main"]], **added})

    def tamper(self, name: str, path: str, data: bytes, kind: str = "model", sha: str | None = None) -> None:
        """Change a file of a commit that exists, as no honest server can; of the newest if not given."""
        repository = self.repository(name, kind)
        files = repository.commits[sha or repository.branches["main"]]
        files[path] = File(data, upload_mode(path, len(data)) == "lfs")

    def tag(self, name: str, tag: str, sha: str, kind: str = "model") -> None:
        """Set or move a tag."""
        self.repository(name, kind).tags[tag] = sha

    def fail(self, pattern: str, times: int = 1, **how: Any) -> Fault:
        """Let the next requests fail whose ``METHOD /path`` matches a pattern from its beginning, see :class:`Fault`."""
        fault = Fault(pattern, times, **how)
        with self.lock:
            self.faults.append(fault)
        return fault

    def calls(self, pattern: str = "") -> list[str]:
        """``METHOD /path`` of the requests so far that match a pattern from their beginning."""
        return [call for call, _ in self.requests if re.match(pattern, call)]

    # for the handler ---------------------------------------------------------------------------------------------------------

    def fault(self, call: str) -> Fault | None:
        """The fault that a request meets, which is then used up."""
        with self.lock:
            for fault in self.faults:
                if fault.times > 0 and re.match(fault.pattern, call):
                    fault.times -= 1
                    return fault
        return None

    def account(self, token: str | None) -> Account | None:
        """Whom a request is from, None of nobody.

        :raises RefusalError: the token is unknown
        """
        if token is not None and token not in self.accounts:
            raise RefusalError(401, "Invalid credentials in Authorization header")
        return None if token is None else self.accounts[token]

    def visible(self, kind: str, name: str, account: Account | None) -> Repository:
        """A repository, if it is there for that account.

        :raises RefusalError: it is not; private ones are not told from missing ones
        """
        found = self.repositories.get((kind, name))
        if found is None or (found.private and not _member(account, name)):
            raise RefusalError(401 if account is None else 404, "Repository not found", "RepoNotFound")
        return found

    def writable(self, kind: str, name: str, account: Account | None) -> Repository:
        """A repository that an account may write to.

        :raises RefusalError: it may not
        """
        found = self.visible(kind, name, account)
        require_writer(account, name)
        return found


def _member(account: Account | None, name: str) -> bool:
    return account is not None and account.namespace == name.partition("/")[0]


def require_writer(account: Account | None, name: str) -> None:
    """See that an account may write to a repository, or create it.

    :raises RefusalError: it may not
    """
    if account is None:
        raise RefusalError(401, "Invalid username or password.")
    if not _member(account, name):
        raise RefusalError(403, f'You don\'t have the rights to write under the namespace "{name.partition("/")[0]}"')
    if account.role != "write":
        raise RefusalError(403, "Forbidden: you must use a write token to upload to a repository")


def upload_mode(path: str, size: int) -> str:
    """``lfs`` or ``regular``."""
    return "lfs" if size >= REGULAR_BYTES or path.endswith(LFS_ENDINGS) else "regular"


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, hub: HubServer) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.hub = hub

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError):  # a client that went away is none
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1

    def log_message(self, *_: Any) -> None:
        pass

    @property
    def hub(self) -> HubServer:
        return self.server.hub

    def _answer(self) -> None:
        url = urlsplit(self.path)
        self.query = parse_qs(url.query)
        self.body = self._read()
        call = f"{self.command} {unquote(url.path)}"
        scheme, _, given = self.headers.get("Authorization", "").partition(" ")
        token = given if scheme == "Bearer" else None
        with self.hub.lock:
            self.hub.requests.append((call, token))
        self.fault = self.hub.fault(call)
        try:
            if self.fault is not None and self.fault.hold is not None:
                self.fault.hold.wait(self.fault.delay)
            if self.fault is not None and self.fault.status is not None:
                raise RefusalError(self.fault.status, "as asked for", headers=self.fault.headers)
            self.account = self.hub.account(token)
            for method, pattern, action in ROUTES:
                match = re.fullmatch(pattern, url.path)
                if match and self.command in method:
                    with self.hub.lock:
                        found = action(
                            self, **{name: unquote(value or "") for name, value in match.groupdict().items()}
                        )
                    break
            else:
                raise RefusalError(404, f"no such route: {call}")
        except RefusalError as refusal:
            self._send(refusal.status, json.dumps(refusal.body).encode(), refusal.headers)
        else:
            if isinstance(found, File):
                self._send_file(found)
            elif isinstance(found, bytes):
                self._send(200, found, {"Content-Type": "text/plain"})
            else:
                self._send(200, json.dumps(found).encode(), {"Content-Type": "application/json"})

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = _answer  # noqa: N815, the standard library's names

    def _read(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        return b"".join(self._chunks())

    def _chunks(self) -> Iterator[bytes]:
        while size := int(self.rfile.readline().split(b";")[0], 16):
            yield self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()

    def _send(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self._write(body)

    def _write(self, body: bytes) -> None:
        fault = self.fault
        if fault is not None and fault.corrupt and body:
            body = bytes([body[0] ^ 1]) + body[1:]
        if fault is not None and fault.cut is not None:
            body = body[: fault.cut]
            self.close_connection = True
        self.wfile.write(body)

    def _send_file(self, file: File) -> None:
        headers = {"ETag": f'"{file.oid}"', "X-Repo-Commit": self.sha, "Accept-Ranges": "bytes"}
        if file.lfs:
            headers |= {"X-Linked-Etag": f'"{file.sha256}"', "X-Linked-Size": str(len(file.data))}
        span = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", ""))
        if span is None or span[0] == "bytes=-":
            return self._send(200, file.data, headers)
        size = len(file.data)
        start = int(span[1]) if span[1] else max(size - int(span[2]), 0)
        stop = min(int(span[2]) + 1, size) if span[1] and span[2] else size
        if start >= size or stop <= start:
            return self._send(416, b"", {"Content-Range": f"bytes */{size}"})
        headers["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
        return self._send(206, file.data[start:stop], headers)

    # routes ------------------------------------------------------------------------------------------------------------------

    def whoami(self) -> Any:
        if self.account is None:
            raise RefusalError(401, "Invalid username or password.")
        token = {"accessToken": {"displayName": "test", "role": self.account.role}}
        return {"name": self.account.namespace, "type": "user", "orgs": [], "auth": token}

    def create(self) -> Any:
        asked = json.loads(self.body)
        kind = asked.get("type") or "model"
        namespace = asked.get("organization") or (self.account.namespace if self.account else "")
        name = f"{namespace}/{asked['name']}"
        require_writer(self.account, name)
        url = f"{self.hub.url}/{'datasets/' if kind == 'dataset' else ''}{name}"
        if (kind, name) in self.hub.repositories:
            raise RefusalError(409, f"You already created this {kind} repo", url=url, name=name)
        self.hub.create(name, kind, bool(asked.get("private") or asked.get("visibility") == "private"))
        return {"url": url, "name": name}

    def validate_card(self) -> Any:
        content = json.loads(self.body)["content"]
        if re.match(r"---\n.*?\n---\n", content, re.DOTALL):
            return {"errors": [], "warnings": []}
        return {"errors": [], "warnings": [{"message": "empty or missing yaml metadata in repo card"}]}

    def preupload(self, kind: str, name: str, revision: str) -> Any:
        files = self._at(self.hub.writable(KINDS[kind], name, self.account), revision)
        return {
            "files": [
                {
                    "path": asked["path"], "uploadMode": upload_mode(asked["path"], asked["size"]), "shouldIgnore": False,
                    "oid": files[asked["path"]].oid if asked["path"] in files else None,
                }
                for asked in json.loads(self.body)["files"]
            ]
        }  # fmt: skip

    def batch(self, kind: str, name: str) -> Any:
        self.hub.writable(KINDS.get(kind.strip("/"), "model"), name, self.account)
        objects = []
        for asked in json.loads(self.body)["objects"]:
            where = f"{self.hub.url}/lfs/{asked['oid']}"
            actions = {"upload": {"href": where}, "verify": {"href": f"{where}/verify"}}
            objects.append(asked if asked["oid"] in self.hub.objects else {**asked, "actions": actions})
        return {"transfer": "basic", "objects": objects}

    def upload(self, oid: str) -> Any:
        if hashlib.sha256(self.body).hexdigest() != oid:
            raise RefusalError(400, "the content does not match its SHA-256")
        self.hub.objects[oid] = self.body
        return b""

    def verify(self, oid: str) -> Any:
        if len(self.hub.objects.get(oid, b"")) != json.loads(self.body)["size"]:
            raise RefusalError(404, "no such object")
        return {}

    def commit(self, kind: str, name: str, revision: str) -> Any:
        repository = self.hub.writable(KINDS[kind], name, self.account)
        if revision not in repository.branches:
            raise RefusalError(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        parent = repository.branches[revision]
        files = dict(repository.commits[parent])
        for line in self.body.splitlines():
            entry = json.loads(line)
            _apply(entry["key"], entry["value"], files, parent, self.hub.objects)
        sha = repository.commit(files, revision)
        return {"success": True, "commitOid": sha, "commitUrl": f"{self.hub.url}/{name}/commit/{sha}", "hookOutput": ""}

    def tag(self, kind: str, name: str, revision: str) -> Any:
        repository = self.hub.writable(KINDS[kind], name, self.account)
        if self.command == "DELETE":
            if repository.tags.pop(revision, None) is None:
                raise RefusalError(404, "no such tag", "RevisionNotFound")
            return b""
        tag = json.loads(self.body)["tag"]
        self._at(repository, revision)
        if tag in repository.tags:
            raise RefusalError(409, "Tag reference exists already.")
        repository.tags[tag] = self.sha
        return b""

    def refs(self, kind: str, name: str) -> Any:
        repository = self.hub.visible(KINDS[kind], name, self.account)
        return {
            "branches": [_ref("heads", *item) for item in repository.branches.items()],
            "tags": [_ref("tags", *item) for item in repository.tags.items()], "converts": [],
        }  # fmt: skip

    def commits(self, kind: str, name: str, revision: str) -> Any:
        repository = self.hub.visible(KINDS[kind], name, self.account)
        self._at(repository, revision)
        shas = list(repository.commits)
        history = reversed(shas[: shas.index(self.sha) + 1])
        return [{"id": sha, "title": "commit", "message": "", "date": CREATED, "authors": []} for sha in history]

    def info(self, kind: str, name: str, revision: str) -> Any:
        repository = self.hub.visible(KINDS[kind], name, self.account)
        files = self._at(repository, revision or "main")
        siblings = [
            {"rfilename": path} | ({"size": len(file.data)} if "blobs" in self.query else {})
            for path, file in files.items()
        ]
        return {
            "_id": "0", "id": name, "modelId": name, "author": name.partition("/")[0], "sha": self.sha, "private": repository.private,
            "gated": False, "disabled": False, "downloads": 0, "likes": 0, "tags": [], "createdAt": CREATED, "lastModified": CREATED,
            "siblings": siblings,
        }  # fmt: skip

    def tree(self, kind: str, name: str, revision: str, path: str) -> Any:
        files = self._at(self.hub.visible(KINDS[kind], name, self.account), revision)
        root = f"{path}/" if path else ""
        below = {name: file for name, file in files.items() if name.startswith(root)}
        if root and not below:
            raise RefusalError(404, f"{path} does not exist", "EntryNotFound", {"X-Repo-Commit": self.sha})
        folders = {name[: end.start()] for name in below for end in re.finditer("/", name) if end.start() >= len(root)}
        found = [self._described(name, file) for name, file in below.items()] + [
            self._described(name, None) for name in folders
        ]
        deep = self.query.get("recursive", ["false"])[0].lower() in ("true", "1")
        return sorted(
            (entry for entry in found if deep or "/" not in entry["path"][len(root) :]), key=lambda entry: entry["path"]
        )

    def paths_info(self, kind: str, name: str, revision: str) -> Any:
        files = self._at(self.hub.visible(KINDS[kind], name, self.account), revision)
        if self.headers.get("Content-Type", "").startswith("application/json"):
            asked = json.loads(self.body)["paths"]
        else:
            asked = parse_qs(self.body.decode())["paths"]
        folders = [path for path in asked if any(name.startswith(f"{path}/") for name in files)]
        return [self._described(path, files.get(path)) for path in asked if path in files or path in folders]

    def _described(self, path: str, file: File | None) -> dict[str, Any]:
        expanded = self.query.get("expand", ["false"])[0].lower() in ("true", "1") or b"expand=true" in self.body
        last = {"lastCommit": {"id": self.sha, "title": "commit", "date": CREATED}} if expanded else {}
        if file is None:
            return {
                "type": "directory",
                "oid": hashlib.sha1(path.encode()).hexdigest(),
                "size": 0,
                "path": path,
                **last,
            }
        lfs = {"lfs": {"oid": file.sha256, "size": len(file.data), "pointerSize": 134}} if file.lfs else {}
        return {"type": "file", "oid": file.oid[:40], "size": len(file.data), "path": path, **lfs, **last}

    def resolve(self, kind: str, name: str, revision: str, path: str) -> Any:
        files = self._at(self.hub.visible(KINDS.get(kind.strip("/"), "model"), name, self.account), revision)
        if path not in files:
            raise RefusalError(404, "Entry not found", "EntryNotFound", {"X-Repo-Commit": self.sha})
        return files[path]

    def _at(self, repository: Repository, revision: str) -> dict[str, File]:
        """Files of a revision, whose commit is then ``self.sha``."""
        found = repository.resolve(revision)
        if found is None:
            raise RefusalError(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        self.sha = found
        return repository.commits[found]


def _ref(sort: str, name: str, sha: str) -> dict[str, str]:
    return {"name": name, "ref": f"refs/{sort}/{name}", "targetCommit": sha}


def _apply(key: str, value: dict[str, Any], files: dict[str, File], parent: str, objects: Mapping[str, bytes]) -> None:
    """Take one line of a commit."""
    if key == "header":
        if value.get("parentCommit", parent) != parent:
            raise RefusalError(412, "A commit has happened since. Please refresh and try again.")
        return
    path = value["path"]
    if path.startswith("/") or ".." in path.split("/"):
        raise RefusalError(400, f"invalid path: {path}")
    if key == "file":
        files[path] = File(base64.b64decode(value["content"]), False)
    elif key == "lfsFile":
        if value["oid"] not in objects:
            raise RefusalError(400, f"LFS pointer pointed to a file that does not exist: {path}")
        files[path] = File(objects[value["oid"]], True)
    elif key == "deletedFile":
        if files.pop(path, None) is None:
            raise RefusalError(404, "A file with this name doesn't exist", "EntryNotFound")
    elif key == "deletedFolder":
        for name in [name for name in files if name.startswith(path.rstrip("/") + "/")]:
            del files[name]
    else:
        raise RefusalError(400, f"unknown operation {key}")


_NAME = r"(?P<name>[^/]+/[^/]+)"
_API = rf"/api/(?P<kind>models|datasets)/{_NAME}"
_REVISION = r"(?P<revision>[^/]+)"
ROUTES: list[tuple[tuple[str, ...], str, Callable[..., Any]]] = [
    (("GET",), "/api/whoami-v2", _Handler.whoami),
    (("POST",), "/api/repos/create", _Handler.create),
    (("POST",), "/api/validate-yaml", _Handler.validate_card),
    (("POST",), rf"{_API}/preupload/{_REVISION}", _Handler.preupload),
    (("POST",), rf"{_API}/commit/{_REVISION}", _Handler.commit),
    (("POST", "DELETE"), rf"{_API}/tag/{_REVISION}", _Handler.tag),
    (("GET",), rf"{_API}/refs", _Handler.refs),
    (("GET",), rf"{_API}/commits/{_REVISION}", _Handler.commits),
    (("GET",), rf"{_API}/tree/{_REVISION}(?:/(?P<path>.+))?", _Handler.tree),
    (("POST",), rf"{_API}/paths-info/{_REVISION}", _Handler.paths_info),
    (("GET",), rf"{_API}(?:/revision/{_REVISION})?", _Handler.info),
    (("POST",), rf"/(?P<kind>datasets/)?{_NAME}\.git/info/lfs/objects/batch", _Handler.batch),
    (("POST",), r"/lfs/(?P<oid>[0-9a-f]{64})/verify", _Handler.verify),
    (("PUT",), r"/lfs/(?P<oid>[0-9a-f]{64})", _Handler.upload),
    (("GET", "HEAD"), rf"/(?P<kind>datasets/)?{_NAME}/resolve/{_REVISION}/(?P<path>.+)", _Handler.resolve),
]
