"""A small server of the Hub's API on loopback: what `huggingface_hub` asks for, with the faults that a test wants."""

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import unquote

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(ThreadingHTTPServer):
    """Repositories by name, each {file: bytes}; weights are sent from another address, to which it redirects.

    Attributes:
        requests: every request, as "GET /path".
        ranges: the Range header of every download that has one.
        drop: how many downloads of weights break off after half of what they should send.
        refuse: whether every login is refused.
        commits: what was pushed: {repository: {file: bytes}}.

    """

    def __init__(self, repositories: dict[str, dict[str, bytes]]):
        super().__init__(("127.0.0.1", 0), _Answers)
        self.repositories = repositories
        self.requests: list[str] = []
        self.ranges: list[str] = []
        self.drop = 0
        self.refuse = False
        self.commits: dict[str, dict[str, bytes]] = {}
        self.created: list[dict] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


@contextmanager
def serving(repositories: dict[str, dict[str, bytes]]) -> Iterator[Hub]:
    hub = Hub(repositories)
    thread = Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()
        thread.join()


class _Answers(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None: ...

    def do_HEAD(self) -> None:
        self.answer(False)

    def do_GET(self) -> None:
        self.answer(True)

    def answer(self, body: bool) -> None:
        path = unquote(self.path.partition("?")[0])
        self.server.requests.append(f"{self.command} {path}")
        if self.server.refuse:
            return self.fail(401, "", "Invalid credentials in Authorization header")
        if path == "/api/whoami-v2":
            return self.send(200, json.dumps({"name": "me", "type": "user", "orgs": []}).encode())
        if found := re.fullmatch(r"/api/models/(.+)/(revision|tree)/(.+)", path):
            repository, what, revision = found.groups()
            return self.listing(repository, what, revision)
        found = re.fullmatch(r"/(cdn/)?(.+)/resolve/([^/]+)/(.+)", path)
        if found is None:
            return self.fail(404, "RepoNotFound")
        cdn, repository, _, file = found.groups()
        content = self.server.repositories.get(repository, {}).get(file)
        if content is None:
            return self.fail(404, "EntryNotFound")
        headers = {"ETag": f'"{hashlib.sha256(content).hexdigest()}"', "X-Repo-Commit": COMMIT}
        if file.endswith(".safetensors") and not cdn:
            headers["X-Linked-Size"] = str(len(content))
            headers["X-Linked-Etag"] = headers["ETag"]
            return self.send(302, b"", headers | {"Location": f"{self.server.url}/cdn{path}"})
        asked = self.headers.get("Range")
        start = int(asked.removeprefix("bytes=").partition("-")[0]) if asked else 0
        if asked:
            self.server.ranges.append(asked)
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        rest = content[start:]
        if cdn and body and self.server.drop:
            self.server.drop -= 1
            self.send(206 if asked else 200, rest, headers, sent=len(rest) // 2)
            self.close_connection = True
            return None
        return self.send(206 if asked else 200, rest, headers, sent=len(rest) if body else 0)

    def listing(self, repository: str, what: str, revision: str) -> None:
        files = self.server.repositories.get(repository)
        if files is None:
            return self.fail(404, "RepoNotFound")
        if revision not in ("main", "v1", COMMIT):
            return self.fail(404, "RevisionNotFound")
        if what == "revision":
            names = [{"rfilename": name} for name in files]
            content = {"id": repository, "sha": COMMIT, "siblings": names, "tags": [], "private": False}
        else:
            content = [
                {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
                for name, data in files.items()
            ]
        return self.send(200, json.dumps(content).encode())

    def do_POST(self) -> None:
        path = unquote(self.path.partition("?")[0])
        self.server.requests.append(f"POST {path}")
        data = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.server.refuse:
            return self.fail(401, "", "Invalid credentials in Authorization header")
        if path == "/api/repos/create":
            self.server.created.append(json.loads(data))
            name = f"{self.server.created[-1].get('organization', 'me')}/{self.server.created[-1]['name']}"
            return self.send(200, json.dumps({"url": f"{self.server.url}/{name}"}).encode())
        if path == "/api/validate-yaml":
            return self.send(200, json.dumps({"warnings": [], "errors": []}).encode())
        if found := re.fullmatch(r"/api/models/(.+)/preupload/(.+)", path):
            files = [
                {"path": one["path"], "uploadMode": "regular", "shouldIgnore": False}
                for one in json.loads(data)["files"]
            ]
            return self.send(200, json.dumps({"files": files}).encode())
        if found := re.fullmatch(r"/api/models/(.+)/commit/(.+)", path):
            lines = [json.loads(line) for line in data.splitlines()]
            self.server.commits[found[1]] = {
                line["value"]["path"]: base64.b64decode(line["value"]["content"])
                for line in lines
                if line["key"] == "file"
            }
            url = f"{self.server.url}/{found[1]}/commit/{COMMIT}"
            answer = {"success": True, "commitUrl": url, "commitOid": COMMIT}
            return self.send(200, json.dumps(answer).encode())
        return self.fail(404, "RepoNotFound")

    def send(self, code: int, content: bytes, headers: dict[str, str] | None = None, sent: int | None = None) -> None:
        self.send_response(code)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content if sent is None else content[:sent])

    def fail(self, code: int, error: str, message: str = "") -> None:
        headers = {"X-Error-Code": error} if error else {}
        self.send(code, b"", headers | ({"X-Error-Message": message} if message else {}))
