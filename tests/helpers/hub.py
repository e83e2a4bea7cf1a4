"""A hub on the loopback: as much of its HTTP interface as creating, uploading to and downloading from a repository takes."""

import base64
import hashlib
import json
import re
from http.server import BaseHTTPRequestHandler
from urllib.parse import unquote, urlsplit

from helpers.serving import Serving

COMMIT = "c" * 40


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def _reply(self, body: bytes | dict | list, status: int = 200, **headers: str) -> None:
        body = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **{k.replace("_", "-"): v for k, v in headers.items()}}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_POST(self):
        hub, path = self.server, unquote(urlsplit(self.path).path)
        sent = self.rfile.read(int(self.headers["Content-Length"]))
        hub.tokens.add(self.headers.get("Authorization"))
        if path == "/api/repos/create":
            asked = json.loads(sent)
            name = f"{asked.get('organization') or 'me'}/{asked['name']}"
            hub.repositories.setdefault(name, {})
            hub.private[name] = asked.get("private") or asked.get("visibility") == "private"
            return self._reply({"url": f"{hub.url}/{name}"})
        if path == "/api/validate-yaml":
            return self._reply({"errors": [], "warnings": []})
        if found := re.fullmatch(r"/api/models/(.+)/preupload/\w+", path):
            files = [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in json.loads(sent)["files"]]
            return self._reply({"files": files})
        if found := re.fullmatch(r"/api/models/(.+)/commit/\w+", path):
            for line in map(json.loads, sent.decode().splitlines()):
                if line["key"] == "file":
                    hub.repositories[found[1]][line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            return self._reply({"commitUrl": f"{hub.url}/{found[1]}/commit/{COMMIT}", "commitOid": COMMIT, "success": True})
        return self._reply({"error": f"no {path}"}, 404)

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        hub, path = self.server, unquote(urlsplit(self.path).path)
        if (found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/[^/]+/(.+)", path)) and found[1] in hub.repositories:
            content = hub.repositories[found[1]].get(found[2])
            if content is None:
                return self._reply({"error": "Entry not found"}, 404, X_Error_Code="EntryNotFound")
            return self._reply(content, ETag=f'"{hashlib.sha1(content).hexdigest()}"', X_Repo_Commit=COMMIT)
        if (found := re.match(r"/api/models/([^/]+/[^/]+)(/.*)?$", path)) and found[1] in hub.repositories:
            files = hub.repositories[found[1]]
            if (found[2] or "").startswith("/tree/"):
                return self._reply([{"type": "file", "path": p, "size": len(c), "oid": "0" * 40} for p, c in files.items()])
            siblings = [{"rfilename": p} for p in files]
            return self._reply(
                {"id": found[1], "modelId": found[1], "sha": COMMIT, "siblings": siblings, "tags": [], "private": True}
            )
        return self._reply({"error": "Repository not found"}, 404, X_Error_Code="RepoNotFound")

    def log_message(self, *args):
        pass


class Hub(Serving):
    """repositories: OWNER/NAME -> path -> bytes."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.private: dict[str, bool] = {}
        self.tokens: set[str | None] = set()
        self.url = f"http://127.0.0.1:{self.server_port}"
