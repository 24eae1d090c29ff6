"""A stand-in for the Hugging Face hub: its HTTP API on loopback, repositories in memory.

Enough of https://huggingface.co/docs/hub/api for huggingface_hub and datasets to create, fill, list
and download models and datasets, with git's and Git LFS's object ids, so that a client's caches and
its "nothing has changed" work as on the real hub. Xet storage is not offered: HF_HUB_DISABLE_XET=1.
"""

import base64
import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prefect.settings import get_current_settings
from werkzeug import Request, Response
from werkzeug.exceptions import HTTPException
from werkzeug.routing import Map, Rule
from werkzeug.serving import WSGIRequestHandler, make_server

WRITE_TOKEN = "hf_standInWriteToken7b1e"
READ_TOKEN = "hf_standInReadToken42c9"
FINE_TOKEN = "hf_standInFineToken90d3"
ORGS = {"studio": "write", "museum": "read"}
"""Organization → what `owner` may do in it."""

LARGE_FILES = (".safetensors", ".bin", ".parquet", ".h5", ".onnx", ".msgpack")


@dataclass(frozen=True)
class Blob:
    """A file's content at one commit."""

    data: bytes
    large: bool

    @property
    def git_oid(self) -> str:
        """What git calls it; of a large file, git holds only the pointer."""
        return hashlib.sha1(b"blob %d\0" % len(self.git_data) + self.git_data).hexdigest()

    @property
    def git_data(self) -> bytes:
        """The bytes that git holds. https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md"""
        if not self.large:
            return self.data
        pointer = (
            "version https://git-lfs.github.com/spec/v1\n"
            f"oid sha256:{self.sha256}\nsize {len(self.data)}\n"
        )
        return pointer.encode()

    @property
    def sha256(self) -> str:
        """What Git LFS calls it."""
        return hashlib.sha256(self.data).hexdigest()

    @property
    def etag(self) -> str:
        """What the hub gives as ETag."""
        return self.sha256 if self.large else self.git_oid


@dataclass
class Repository:
    """A model or dataset repository with one branch, `main`."""

    kind: str
    name: str
    private: bool = False
    gated: bool = False
    commits: list[str] = field(default_factory=list)
    trees: dict[str, dict[str, Blob]] = field(default_factory=dict)

    @property
    def head(self) -> str:
        """The newest commit."""
        return self.commits[-1]

    @property
    def files(self) -> dict[str, Blob]:
        """Path → content at the newest commit."""
        return self.trees[self.head]

    def commit(self, files: dict[str, Blob], message: str) -> str:
        """Make `files` the whole content of the branch."""
        tree = "".join(f"{path} {blob.git_oid}\n" for path, blob in sorted(files.items()))
        oid = hashlib.sha1(f"{len(self.commits)} {message}\n{tree}".encode()).hexdigest()
        self.commits.append(oid)
        self.trees[oid] = dict(files)
        return oid


class RefusalError(Exception):
    """An error that the hub answers with its own headers."""

    def __init__(self, status: int, message: str, code: str = "") -> None:
        super().__init__(message)
        self.status, self.message, self.code = status, message, code


class HubServer:
    """The hub at `url`; use as a context manager.

    WRITE_TOKEN may write the repositories of `owner`, READ_TOKEN may only read,
    FINE_TOKEN may write those of the organization `studio`.
    """

    def __init__(self) -> None:
        self.repositories: dict[tuple[str, str], Repository] = {}
        self.objects: dict[str, bytes] = {}
        self.requests: list[str] = []
        """Method and path of every request, in order."""
        self.failures: list[tuple[str, int]] = []
        """(part of a request's `METHOD path`, status): each is answered once in place of it."""
        self._lock = threading.Lock()
        self._server = make_server(
            "127.0.0.1", 0, self._application, threaded=True, request_handler=_SilentHandler
        )
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._routes = Map([Rule(rule, endpoint=answer) for rule, answer in self._rules()])

    def __enter__(self) -> "HubServer":
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def add(self, kind: str, name: str, folder: Path | None = None, **flags: bool) -> Repository:
        """Put a repository on the hub, with a folder's files."""
        repository = Repository(kind, name, **flags)
        repository.commit({}, "initial commit")
        if folder:
            files = [file for file in sorted(folder.rglob("*")) if file.is_file()]
            repository.commit(
                {str(f.relative_to(folder)): _blob(str(f), f.read_bytes()) for f in files}, "add"
            )
        self.repositories[kind, name] = repository
        return repository

    def downloads(self) -> list[str]:
        """Paths of the files that were fetched, each once."""
        fetched = [r.partition("/resolve/")[2] for r in self.requests if r.startswith("GET /")]
        return sorted({path.partition("/")[2] for path in fetched if path})

    def environment(self, home: Path, **more: str) -> dict[str, str]:
        """The environment of a process whose hub is this one, with its cache in `home`."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
        return {
            **kept,
            "HF_ENDPOINT": self.url,
            "HF_HOME": str(home),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_OFFLINE": "0",
            **more,
        }

    # --- the API ---

    def _rules(self) -> Iterator[tuple[str, Callable[..., Response]]]:
        api = "/api/<any(models, datasets):kinds>/<owner>/<repo>"
        yield "/api/whoami-v2", self._whoami
        yield "/api/repos/create", self._create
        yield "/api/validate-yaml", self._validate_yaml
        yield api, self._info
        yield f"{api}/revision/<revision>", self._info
        yield f"{api}/refs", self._refs
        yield f"{api}/tree/<revision>", self._tree
        yield f"{api}/tree/<revision>/<path:path>", self._tree
        yield f"{api}/paths-info/<revision>", self._paths_info
        yield f"{api}/preupload/<revision>", self._preupload
        yield f"{api}/commit/<revision>", self._commit
        yield "/lfs/<oid>", self._store_object
        yield "/lfs/<oid>/verify", self._verify_object
        for kinds, prefix in (("models", ""), ("datasets", "/datasets")):
            page = f"{prefix}/<owner>/<repo>"
            yield f"{page}.git/info/lfs/objects/batch", _of(kinds, self._batch)
            yield f"{page}/resolve/<revision>/<path:path>", _of(kinds, self._resolve)

    def _application(self, environ: Any, start_response: Any) -> Any:
        request = Request(environ)
        response = self._answer(request)
        return response(environ, start_response)

    def _answer(self, request: Request) -> Response:
        line = f"{request.method} {request.path}"
        with self._lock:
            self.requests.append(line)
            for failure in self.failures:
                if failure[0] in line:
                    self.failures.remove(failure)
                    request.get_data()
                    return Response("", failure[1])
        try:
            endpoint, values = self._routes.bind_to_environ(request.environ).match()
            with self._lock:
                answer: Response = endpoint(request, **values)
        except RefusalError as refusal:
            request.get_data()  # else the connection breaks while the client still sends
            headers = {"X-Error-Message": refusal.message, "X-Error-Code": refusal.code}
            return Response(
                json.dumps({"error": refusal.message}),
                refusal.status,
                {name: value for name, value in headers.items() if value},
                content_type="application/json",
            )
        except HTTPException as error:
            return Response(str(error), error.code)
        return answer

    def _role(self, request: Request) -> str | None:
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        roles = {"": None, WRITE_TOKEN: "write", READ_TOKEN: "read", FINE_TOKEN: "fineGrained"}
        if token not in roles:
            raise RefusalError(401, "Invalid credentials in Authorization header")
        return roles[token]

    def _may_write(self, request: Request, owner: str) -> None:
        role = self._role(request)
        if role is None:
            raise RefusalError(401, "Invalid username or password.")
        if role != "write" or owner != "owner":
            raise RefusalError(
                403, f'You don\'t have the rights to write under the namespace "{owner}"'
            )

    def _repository(self, request: Request, kinds: str, owner: str, repo: str) -> Repository:
        role = self._role(request)
        repository = self.repositories.get((kinds.removesuffix("s"), f"{owner}/{repo}"))
        if repository is None or (repository.private and role is None):
            raise RefusalError(401 if role is None else 404, "Repository not found", "RepoNotFound")
        return repository

    def _files(self, repository: Repository, revision: str) -> tuple[str, dict[str, Blob]]:
        oid = repository.head if revision == "main" else revision
        if oid not in repository.trees:
            raise RefusalError(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return oid, repository.trees[oid]

    def _whoami(self, request: Request) -> Response:
        role = self._role(request)
        if role is None:
            raise RefusalError(401, "Invalid username or password.")
        orgs = [{"name": name, "roleInOrg": role_in_org} for name, role_in_org in ORGS.items()]
        access: dict[str, Any] = {"displayName": "a token", "role": role}
        if role == "fineGrained":
            entity = {"type": "org", "name": "studio"}
            scope = {"entity": entity, "permissions": ["repo.content.read", "repo.write"]}
            access["fineGrained"] = {"global": [], "scoped": [scope]}
        auth = {"type": "access_token", "accessToken": access}
        return _json({"type": "user", "name": "owner", "orgs": orgs, "auth": auth})

    def _create(self, request: Request) -> Response:
        wish = request.get_json()
        kind, owner = wish.get("type", "model"), wish["organization"] or "owner"
        self._may_write(request, owner)
        name = f"{owner}/{wish['name']}"
        url = f"{self.url}/{'datasets/' if kind == 'dataset' else ''}{name}"
        if (kind, name) in self.repositories:
            body = {"error": "You already created this repo", "url": url}
            return Response(json.dumps(body), 409, content_type="application/json")
        self.add(kind, name, private=wish.get("visibility") == "private")
        return _json({"url": url})

    def _validate_yaml(self, request: Request) -> Response:
        return _json({"errors": [], "warnings": []})

    def _info(
        self, request: Request, kinds: str, owner: str, repo: str, revision: str = "main"
    ) -> Response:
        repository = self._repository(request, kinds, owner, repo)
        oid, files = self._files(repository, revision)
        return _json(
            {
                "id": repository.name,
                "sha": oid,
                "private": repository.private,
                "gated": "manual" if repository.gated else False,
                "tags": [],
                "siblings": [{"rfilename": path} for path in files],
            }
        )

    def _refs(self, request: Request, kinds: str, owner: str, repo: str) -> Response:
        repository = self._repository(request, kinds, owner, repo)
        main = {"name": "main", "ref": "refs/heads/main", "targetCommit": repository.head}
        return _json({"branches": [main], "converts": [], "tags": []})

    def _tree(
        self, request: Request, kinds: str, owner: str, repo: str, revision: str, path: str = ""
    ) -> Response:
        repository = self._repository(request, kinds, owner, repo)
        entries = _entries(self._files(repository, revision)[1])
        prefix = f"{path}/" if path else ""
        inside = [entry for name, entry in entries.items() if name.startswith(prefix)]
        if path and not inside:
            raise RefusalError(404, f"{path} does not exist", "EntryNotFound")
        if request.args.get("recursive", "").lower() != "true":
            inside = [entry for entry in inside if "/" not in entry["path"][len(prefix) :]]
        return _json(inside)

    def _paths_info(
        self, request: Request, kinds: str, owner: str, repo: str, revision: str
    ) -> Response:
        repository = self._repository(request, kinds, owner, repo)
        entries = _entries(self._files(repository, revision)[1])
        asked = request.form.getlist("paths")
        return _json([entries[path] for path in asked if path in entries])

    def _preupload(
        self, request: Request, kinds: str, owner: str, repo: str, revision: str
    ) -> Response:
        self._may_write(request, owner)
        files = self._files(self._repository(request, kinds, owner, repo), revision)[1]
        answers = []
        for file in request.get_json()["files"]:
            path = file["path"]
            known = files.get(path)
            mode = "lfs" if path.endswith(LARGE_FILES) else "regular"
            answers.append(
                {
                    "path": path,
                    "uploadMode": mode,
                    "shouldIgnore": False,
                    **({"oid": known.etag} if known else {}),
                }
            )
        return _json({"files": answers})

    def _batch(self, request: Request, kinds: str, owner: str, repo: str) -> Response:
        self._may_write(request, owner)
        objects = []
        for wanted in request.get_json()["objects"]:
            href = f"{self.url}/lfs/{wanted['oid']}"
            actions = {"upload": {"href": href}, "verify": {"href": f"{href}/verify"}}
            new = wanted["oid"] not in self.objects
            objects.append({**wanted, **({"actions": actions} if new else {})})
        return _json({"transfer": "basic", "objects": objects})

    def _store_object(self, request: Request, oid: str) -> Response:
        data = request.get_data()
        if hashlib.sha256(data).hexdigest() != oid:
            raise RefusalError(400, "the content does not have the promised SHA-256")
        self.objects[oid] = data
        return Response()

    def _verify_object(self, request: Request, oid: str) -> Response:
        asked = request.get_json()
        if len(self.objects.get(oid, b"")) != asked["size"]:
            raise RefusalError(404, "no such object")
        return _json({})

    def _commit(
        self, request: Request, kinds: str, owner: str, repo: str, revision: str
    ) -> Response:
        self._may_write(request, owner)
        repository = self._repository(request, kinds, owner, repo)
        files = dict(repository.files)
        message = ""
        for line in request.get_data().splitlines():
            item = json.loads(line)
            value = item["value"]
            match item["key"]:
                case "header":
                    message = value["summary"]
                    if value.get("parentCommit", repository.head) != repository.head:
                        raise RefusalError(412, "A commit has happened since")
                case "file":
                    files[value["path"]] = Blob(base64.b64decode(value["content"]), large=False)
                case "lfsFile":
                    if value["oid"] not in self.objects:
                        raise RefusalError(400, f"LFS pointer to a missing object: {value['path']}")
                    files[value["path"]] = Blob(self.objects[value["oid"]], large=True)
                case "deletedFile":
                    del files[value["path"]]
                case other:
                    raise RefusalError(400, f"operation {other}")
        oid = repository.commit(files, message)
        prefix = "datasets/" if kinds == "datasets" else ""
        url = f"{self.url}/{prefix}{repository.name}/commit/{oid}"
        return _json({"success": True, "commitUrl": url, "commitOid": oid})

    def _resolve(
        self, request: Request, kinds: str, owner: str, repo: str, revision: str, path: str
    ) -> Response:
        repository = self._repository(request, kinds, owner, repo)
        oid, files = self._files(repository, revision)
        if repository.gated and self._role(request) is None:
            raise RefusalError(
                401, f"Access to model {repository.name} is restricted.", "GatedRepo"
            )
        if path not in files:
            raise RefusalError(404, "Entry not found", "EntryNotFound")
        blob = files[path]
        response = Response(blob.data, content_type="application/octet-stream")
        response.headers["X-Repo-Commit"] = oid
        response.headers["Accept-Ranges"] = "bytes"
        response.set_etag(blob.etag)
        if blob.large:
            response.headers["X-Linked-Etag"] = f'"{blob.etag}"'
            response.headers["X-Linked-Size"] = str(len(blob.data))
        return response.make_conditional(
            request.environ, accept_ranges=True, complete_length=len(blob.data)
        )


class _SilentHandler(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"

    def log(self, *_: object) -> None:
        """Tests read `HubServer.requests` instead."""


def _of(kinds: str, answer: Callable[..., Response]) -> Callable[..., Response]:
    return lambda request, **values: answer(request, kinds, **values)


def _json(content: Any) -> Response:
    return Response(json.dumps(content), content_type="application/json")


def _blob(path: str, data: bytes) -> Blob:
    return Blob(data, large=path.endswith(LARGE_FILES))


def _entries(files: dict[str, Blob]) -> dict[str, dict[str, Any]]:
    """Files and folders as the tree API lists them."""
    entries: dict[str, dict[str, Any]] = {}
    for path, blob in files.items():
        for folder in list(Path(path).parents)[:-1]:
            oid = hashlib.sha1(str(folder).encode()).hexdigest()
            entries[str(folder)] = {
                "type": "directory",
                "path": str(folder),
                "oid": oid,
                "size": 0,
            }
        entry = {"type": "file", "path": path, "oid": blob.git_oid, "size": len(blob.data)}
        if blob.large:
            size = len(blob.data)
            pointer = len(blob.git_data)
            entry["lfs"] = {"oid": blob.sha256, "size": size, "pointerSize": pointer}
        entries[path] = entry
    return entries


def run_python(code: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run a program in its own process, since huggingface_hub reads HF_ENDPOINT on import.

    It talks to the Prefect server of the tests. An exit code other than 0 fails the test.
    """
    api = get_current_settings().api.url
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**environment, **({"PREFECT_API_URL": api} if api else {})},
        cwd=Path(__file__).parent.parent,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done
