"""A hub on loopback: as much of the Hugging Face API as its client uses to read and to push.

Repositories live in memory. Commits are named by a hash of their content, so revisions are real:
they can be pinned, listed and missed. Weights go through git-lfs, everything else into the commit,
as on the real hub (Xet is switched off by the tests, as any user may).
"""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

import yaml

LFS_SUFFIXES = (".safetensors", ".parquet", ".bin", ".gz")
_API = re.compile(r"/api/(?P<kind>model|dataset)s/(?P<id>[^/]+/[^/]+)(?:/(?P<rest>.*))?")
_FILE = re.compile(r"/(?P<kind>datasets/)?(?P<id>[^/]+/[^/]+)/resolve/(?P<rev>[^/]+)/(?P<path>.+)")
_LFS = re.compile(r"/(?P<kind>datasets/)?(?P<id>[^/]+/[^/]+)\.git/info/lfs/objects/batch")


@dataclass
class Repo:
    """One repository: commits by hash, branches by name."""

    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    private: bool = False
    gated: bool = False
    readers: frozenset[str] = frozenset()

    def commit(self, files: dict[str, bytes], branch: str = "main") -> str:
        """Put a whole tree on a branch and return the commit's hash."""
        digest = hashlib.sha1(usedforsecurity=False)
        for name, content in sorted(files.items()):
            digest.update(name.encode() + b"\0" + content)
        sha = digest.hexdigest()
        self.commits[sha] = dict(files)
        self.branches[branch] = sha
        return sha

    def find(self, revision: str) -> str | None:
        """The commit of a branch, a tag, a hash, or the beginning of a hash."""
        revision = unquote(revision)
        named = self.branches.get(revision)
        prefix = [sha for sha in self.commits if len(revision) >= 7 and sha.startswith(revision)]
        return named or (prefix[0] if len(prefix) == 1 else None)


@dataclass
class Hub:
    """The state of the server.

    Attributes:
        repos: (kind, id) -> repository.
        tokens: token -> account and whether it may write.
        objects: LFS objects by sha256.
        requests: method and path of every request, in order.
    """

    repos: dict[tuple[str, str], Repo] = field(default_factory=dict)
    tokens: dict[str, tuple[str, bool]] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    url: str = ""

    def add(self, kind: str, repo_id: str, files: dict[str, bytes], **changes: Any) -> str:
        """Make a repository with one commit on main; returns its hash."""
        repo = self.repos.setdefault((kind, repo_id), Repo(**changes))
        return repo.commit(files)


class Refused(Exception):
    """An answer other than 200."""

    def __init__(self, status: int, message: str, code: str = "") -> None:
        super().__init__(message)
        self.status, self.code = status, code


class Handler(BaseHTTPRequestHandler):
    """One request; `hub` is set on the class of each server."""

    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        self._answer(self._get)

    def do_HEAD(self) -> None:
        self._answer(self._get)

    def do_POST(self) -> None:
        self._answer(self._post)

    def do_PUT(self) -> None:
        self._answer(self._put)

    def _answer(self, respond: Any) -> None:
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.place = urlsplit(self.path).path
        self.hub.requests.append(f"{self.command} {self.place}")
        try:
            content, headers = respond()
            self._send(200, content, headers)
        except Refused as refused:
            headers = {"X-Error-Message": str(refused)}
            if refused.code:
                headers["X-Error-Code"] = refused.code
            self._send(refused.status, json.dumps({"error": str(refused)}).encode(), headers)

    def _send(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **headers}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _account(self) -> tuple[str, bool] | None:
        given = self.headers.get("Authorization", "").removeprefix("Bearer ").strip()
        if not given:
            return None
        if given not in self.hub.tokens:
            raise Refused(401, "Invalid credentials in Authorization header")
        return self.hub.tokens[given]

    def _repo(self, kind: str, repo_id: str, *, content: bool = False) -> Repo:
        account = self._account()
        repo = self.hub.repos.get((kind, repo_id))
        owner = account is not None and repo_id.startswith(account[0] + "/")
        if repo is None or (repo.private and not owner):
            raise Refused(404 if account else 401, "Repository not found", "RepoNotFound")
        reader = account is not None and account[0] in repo.readers
        if repo.gated and content and not owner and not reader:
            status = 403 if account else 401
            raise Refused(status, f"Access to {repo_id} is restricted", "GatedRepo")
        return repo

    def _writable(self, repo_id: str) -> str:
        account = self._account()
        if account is None:
            raise Refused(401, "Invalid username or password.")
        if not account[1]:
            raise Refused(403, f"Forbidden: this token of {account[0]} may only read")
        if not repo_id.startswith(account[0] + "/"):
            raise Refused(403, f'You don\'t have the rights to write to "{repo_id}"')
        return account[0]

    def _commit(self, repo: Repo, revision: str) -> str:
        sha = repo.find(revision)
        if sha is None:
            raise Refused(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return sha

    def _get(self) -> tuple[bytes, dict[str, str]]:
        if self.place == "/api/whoami-v2":
            account = self._account()
            if account is None:
                raise Refused(401, "Invalid username or password.")
            return _json({"name": account[0], "type": "user", "orgs": [], "auth": {}})
        if match := _API.fullmatch(self.place):
            return self._api(match["kind"], match["id"], match["rest"] or "")
        if match := _FILE.fullmatch(self.place):
            return self._file(match)
        raise Refused(404, "Not Found", "EntryNotFound")

    def _api(self, kind: str, repo_id: str, rest: str) -> tuple[bytes, dict[str, str]]:
        repo = self._repo(kind, repo_id)  # that a gated repository is there is no secret
        if rest == "" or rest.startswith("revision/"):
            sha = self._commit(repo, rest.removeprefix("revision/") or "main")
            names = [{"rfilename": name} for name in sorted(repo.commits[sha])]
            about = {"id": repo_id, "sha": sha, "siblings": names, "private": repo.private}
            return _json({**about, "gated": False, "tags": [], "cardData": {}, "disabled": False})
        if rest.startswith("tree/"):
            _, revision, *folder = rest.split("/")
            sha = self._commit(repo, revision)
            return _json(
                _tree(
                    repo.commits[sha],
                    unquote("/".join(folder)),
                    "recursive=true" in self.path.lower(),
                )
            )
        raise Refused(404, "Not Found", "EntryNotFound")

    def _file(self, match: re.Match[str]) -> tuple[bytes, dict[str, str]]:
        kind = "dataset" if match["kind"] else "model"
        repo = self._repo(kind, match["id"], content=True)
        sha = self._commit(repo, match["rev"])
        content = repo.commits[sha].get(unquote(match["path"]))
        headers = {"X-Repo-Commit": sha, "Content-Type": "application/octet-stream"}
        if content is None:
            raise Refused(404, "Entry not found", "EntryNotFound")
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if wanted:  # `datasets` reads the ends of Parquet files this way; the whole is allowed
            headers["Accept-Ranges"] = "none"
        return content, {**headers, "ETag": f'"{hashlib.sha256(content).hexdigest()}"'}

    def _post(self) -> tuple[bytes, dict[str, str]]:
        if self.place == "/api/repos/create":
            return self._create(json.loads(self.body))
        if self.place == "/api/validate-yaml":
            return _json({"errors": _card_errors(json.loads(self.body)["content"]), "warnings": []})
        if match := _LFS.fullmatch(self.place):
            self._writable(match["id"])
            return self._lfs_batch(json.loads(self.body))
        match = _API.fullmatch(self.place)
        if match is None:
            raise Refused(404, "Not Found", "EntryNotFound")
        action, _, revision = (match["rest"] or "").partition("/")
        if action == "paths-info":
            return self._paths_info(match["kind"], match["id"], revision)
        self._writable(match["id"])
        repo = self._repo(match["kind"], match["id"])
        if action == "branch":
            if revision in repo.branches:
                raise Refused(409, "Reference already exists")
            repo.branches[unquote(revision)] = repo.branches["main"]
            return _json({})
        self._commit(repo, revision)
        if action == "preupload":
            return _json({"files": [_upload_mode(one) for one in json.loads(self.body)["files"]]})
        if action == "commit":
            return self._new_commit(repo, match["id"], unquote(revision))
        raise Refused(404, "Not Found", "EntryNotFound")

    def _paths_info(self, kind: str, repo_id: str, revision: str) -> tuple[bytes, dict[str, str]]:
        repo = self._repo(kind, repo_id, content=True)
        files = repo.commits[self._commit(repo, revision)]
        if "json" in self.headers.get("Content-Type", ""):
            paths = json.loads(self.body)["paths"]
        else:
            pairs = [pair.partition("=") for pair in self.body.decode().split("&")]
            paths = [unquote(value.replace("+", " ")) for key, _, value in pairs if key == "paths"]
        return _json([_entry(path, files[path]) for path in paths if path in files])

    def _create(self, asked: dict[str, Any]) -> tuple[bytes, dict[str, str]]:
        account = self._account()
        repo_id = f"{asked.get('organization') or (account or ('',))[0]}/{asked['name']}"
        self._writable(repo_id)
        key = (asked.get("type") or "model", repo_id)
        address = {"url": f"{self.hub.url}/{repo_id}", "name": repo_id}
        if key in self.hub.repos:
            raise Refused(409, "You already created this model repo")
        private = asked.get("visibility") == "private" or bool(asked.get("private"))
        self.hub.add(*key, {".gitattributes": b"*.safetensors filter=lfs\n"}, private=private)
        return _json(address)

    def _lfs_batch(self, asked: dict[str, Any]) -> tuple[bytes, dict[str, str]]:
        objects = []
        for one in asked["objects"]:
            href = f"{self.hub.url}/lfs/{one['oid']}"
            known = one["oid"] in self.hub.objects
            actions = {} if known else {"actions": {"upload": {"href": href, "header": {}}}}
            objects.append({**one, **actions})
        return _json({"transfer": "basic", "objects": objects})

    def _new_commit(self, repo: Repo, repo_id: str, branch: str) -> tuple[bytes, dict[str, str]]:
        files = dict(repo.commits[repo.branches[branch]])
        for line in self.body.splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                files[value["path"]] = self.hub.objects[value["oid"]]
            elif entry["key"] == "deletedFile":
                files.pop(value["path"], None)
        sha = repo.commit(files, branch)
        url = f"{self.hub.url}/{repo_id}/commit/{sha}"
        return _json({"success": True, "commitOid": sha, "commitUrl": url})

    def _put(self) -> tuple[bytes, dict[str, str]]:
        oid = self.place.rpartition("/")[2]
        if hashlib.sha256(self.body).hexdigest() != oid:
            raise Refused(400, "the object is another one than was announced")
        self.hub.objects[oid] = self.body
        return b"", {}


def _json(value: Any) -> tuple[bytes, dict[str, str]]:
    return json.dumps(value).encode(), {}


def _upload_mode(asked: dict[str, Any]) -> dict[str, Any]:
    mode = "lfs" if asked["path"].endswith(LFS_SUFFIXES) else "regular"
    return {"path": asked["path"], "uploadMode": mode, "shouldIgnore": False}


def _entry(path: str, content: bytes) -> dict[str, Any]:
    entry: dict[str, Any] = {"type": "file", "path": path, "size": len(content)}
    entry["oid"] = hashlib.sha1(content, usedforsecurity=False).hexdigest()
    if path.endswith(LFS_SUFFIXES):
        sha = hashlib.sha256(content).hexdigest()
        entry["lfs"] = {"oid": sha, "size": len(content), "pointerSize": 134}
    return entry


def _tree(files: dict[str, bytes], folder: str, recursive: bool) -> list[dict[str, Any]]:
    prefix = f"{folder}/" if folder else ""
    inside = {name: content for name, content in files.items() if name.startswith(prefix)}
    if folder and not inside:
        raise Refused(404, f"{folder} does not exist", "EntryNotFound")
    entries, folders = [], set()
    for name, content in sorted(inside.items()):
        parts = name.removeprefix(prefix).split("/")
        folders |= {prefix + "/".join(parts[:n]) for n in range(1, len(parts))}
        if recursive or len(parts) == 1:
            entries.append(_entry(name, content))
    if not recursive:
        folders = {one for one in folders if "/" not in one.removeprefix(prefix)}
    return [
        {"type": "directory", "path": one, "size": 0, "oid": "0"} for one in sorted(folders)
    ] + entries


@contextmanager
def serve() -> Iterator[Hub]:
    """A hub on a free port of 127.0.0.1 while the context lasts."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("BoundHandler", (Handler,), {"hub": hub}))
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _card_errors(card: str) -> list[dict[str, str]]:
    """What the hub holds against the header of a model card: that it is no mapping in YAML."""
    try:
        header = yaml.safe_load(card.split("---")[1]) if card.startswith("---") else {}
    except yaml.YAMLError as error:
        return [{"message": str(error)}]
    return [] if isinstance(header, dict) else [{"message": "the header is no mapping"}]
