"""A server that speaks as much of W&B's protocol as a run needs, and fails in every way."""

from __future__ import annotations

import gzip
import json
import re
import socket
import struct
import sys
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

HANGS_FOR = 600.0  # seconds


@dataclass
class UploadedRun:
    """What has arrived of a run; `history` by line."""

    config: dict[str, Any] = field(default_factory=dict)
    about: dict[str, Any] = field(default_factory=dict)
    history: dict[int, dict[str, Any]] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    exit_code: int | None = None

    @property
    def rows(self) -> list[dict[str, Any]]:
        return [self.history[line] for line in sorted(self.history)]


class Server(ThreadingHTTPServer):
    """Parameters
    ----------
    fault: "", "hangs", "errors", "resets" or "is slow".
    after: requests that are answered before the fault.
    """

    daemon_threads = True

    def __init__(self, fault: str = "", after: int = 0) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.fault, self.after, self.asked = fault, after, 0
        self.runs: dict[str, UploadedRun] = {}
        self.artifacts: list[dict[str, Any]] = []
        self.files: dict[str, bytes] = {}
        self.mistakes: list[str] = []  # of this server's own
        self.lock = threading.Lock()
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def heal(self) -> None:
        self.fault = ""

    def handle_error(self, request: Any, client_address: Any) -> None:
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):  # clients are killed in the middle
            self.mistakes.append(repr(error))

    def answer(self, operation: str, variables: dict[str, Any]) -> dict[str, Any]:
        """The data of a GraphQL answer."""
        name = variables.get("name") or ""
        if operation == "RunResumeStatus":
            run = self.runs.get(name)
            bucket = None if run is None else self._bucket(name, run)
            return {"model": {"id": "p", "name": "p", "entity": _ENTITY, "bucket": bucket}}
        if operation == "UpsertBucket":
            inserted = name not in self.runs
            run = self.runs.setdefault(name, UploadedRun())
            if variables.get("config"):
                run.config |= json.loads(variables["config"])
            run.about |= {key: value for key, value in variables.items() if value is not None}
            bucket = {**self._bucket(name, run), "project": _PROJECT}
            return {"upsertBucket": {"bucket": bucket, "inserted": inserted}}
        if operation == "CreateRunFiles":
            files = [self._upload(name) for name in variables["files"]]
            return {"createRunFiles": {"runID": "r", "uploadHeaders": [], "files": files}}
        if operation == "CreateArtifact":
            self.artifacts.append(variables["input"])
            sequence = {"id": "s", "name": "n", "latestArtifact": None}
            artifact = {"id": f"a{len(self.artifacts)}", "state": "PENDING"}
            return {"createArtifact": {"artifact": {**artifact, "artifactSequence": sequence}}}
        if operation == "CreateArtifactFiles":
            more = {"storagePath": "s", "artifact": {"id": "a"}}
            files = variables["input"]["artifactFiles"]
            nodes = [{"node": {**self._upload(file["name"]), **more}} for file in files]
            return {"createArtifactFiles": {"files": {"edges": nodes}}}
        if operation == "CreateArtifactManifest":
            file = self._upload(f"manifest-{variables['artifactID']}")
            return {"createArtifactManifest": {"artifactManifest": {"id": "m", "file": file}}}
        if operation == "CommitArtifact":
            return {"commitArtifact": {"artifact": {"id": variables["artifactID"], "digest": "d"}}}
        if operation == "ArtifactType":
            return {"project": None}
        if operation == "Viewer":
            return {"viewer": {"id": "u", "entity": "me", "username": "me", "flags": "{}"}}
        return {}

    def _bucket(self, name: str, run: UploadedRun) -> dict[str, Any]:
        tail = [json.dumps(run.rows[-1])] if run.history else []
        return {
            "id": f"id-{name}",
            "name": name,
            "displayName": name,
            "config": json.dumps(run.config),
            "summaryMetrics": json.dumps(run.summary),
            "historyLineCount": len(run.history),
            "eventsLineCount": 0,
            "logLineCount": 0,
            "historyTail": json.dumps(tail),
            "eventsTail": "[]",
            "tags": [],
            "wandbConfig": "{}",
        }

    def _upload(self, name: str) -> dict[str, Any]:
        url = f"{self.url}/upload/{name}"
        return {"id": "f", "name": name, "displayName": name, "uploadUrl": url, "uploadHeaders": []}

    def stream(self, name: str, sent: dict[str, Any]) -> None:
        """What a run sends as it goes: lines of files from an offset on."""
        run = self.runs.setdefault(name, UploadedRun())
        for file, chunk in (sent.get("files") or {}).items():
            lines = [json.loads(line) for line in chunk["content"]]
            if file == "wandb-history.jsonl":
                run.history |= dict(enumerate(lines, start=chunk["offset"]))
            elif file == "wandb-summary.json":
                run.summary = lines[-1]
        if "exitcode" in sent:
            run.exit_code = sent["exitcode"]


_ENTITY = {"id": "e", "name": "me"}
_PROJECT = {"id": "p", "name": "p", "entity": _ENTITY}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_POST(self) -> None:
        body = self._body()
        if "/otel/" in self.path:  # telemetry, which is no part of a run
            return self._send({})
        if self._fails():
            return None
        with self.server.lock:
            if self.path.startswith("/graphql"):
                asked = json.loads(body)
                operation = re.findall(r"(?:query|mutation)\s+(\w+)", asked["query"])[0]
                data = self.server.answer(operation, asked.get("variables") or {})
                return self._send({"data": data})
            self.server.stream(self.path.split("/")[-2], json.loads(body))
        return self._send({"limits": {}})

    def do_PUT(self) -> None:
        body = self._body()
        if not self._fails():
            self.server.files[self.path.rpartition("/upload/")[2]] = body
            self._send({})

    def _fails(self) -> bool:
        self.server.asked += 1
        if not self.server.fault or self.server.asked <= self.server.after:
            return False
        if self.server.fault == "is slow":
            time.sleep(0.5)
            return False
        if self.server.fault == "errors":
            self._send({"error": "out of order"}, code=500)
        elif self.server.fault == "hangs":
            until = time.monotonic() + HANGS_FOR
            while self.server.fault and time.monotonic() < until:
                time.sleep(0.1)
            self.close_connection = True
        elif self.server.fault == "resets":
            linger = struct.pack("ii", 1, 0)  # a reset in place of a farewell
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self.close_connection = True
        return True

    def _send(self, content: dict[str, Any], code: int = 200) -> None:
        body = json.dumps(content).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        return gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body
