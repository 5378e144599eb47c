"""A Hub of model folders on this machine: its HTTP API, as far as huggingface_hub needs it to download."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

COMMIT = "0" * 40


class HubServer(ThreadingHTTPServer):
    """Serves the folders `root/owner/name`; `downloaded` lists the files whose content was asked for."""

    def __init__(self, root: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.root = root
        self.downloaded: list[str] = []


class _Handler(BaseHTTPRequestHandler):
    server: HubServer

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        parts = unquote(urlsplit(self.path).path).strip("/").split("/")
        if parts[:2] == ["api", "models"]:
            folder = self.server.root / parts[2] / parts[3]
            if not folder.is_dir():
                self._send(b"{}", 404, {"X-Error-Code": "RepoNotFound"})
            elif parts[4:5] == ["tree"]:
                self._send_json([{"type": "file", "path": name, "size": size, "oid": "1"}
                                 for name, size in _files(folder)])  # fmt: skip
            else:
                siblings = [{"rfilename": name, "size": size} for name, size in _files(folder)]
                self._send_json({"id": "/".join(parts[2:4]), "sha": COMMIT, "siblings": siblings})
        elif parts[2:3] == ["resolve"]:
            self._send_file("/".join(parts[4:]), self.server.root / parts[0] / parts[1])
        else:
            self._send(b"", 404, {})

    def _send_file(self, name: str, folder: Path) -> None:
        content = (folder / name).read_bytes()
        headers = {"ETag": f'"{hashlib.sha256(content).hexdigest()}"', "X-Repo-Commit": COMMIT}
        self._send(content, 200, headers, name)

    def _send_json(self, value: Any) -> None:
        self._send(json.dumps(value).encode(), 200, {"Content-Type": "application/json"})

    def _send(self, content: bytes, status: int, headers: dict[str, str], name: str = "") -> None:
        self.send_response(status)
        for key, value in (headers | {"Content-Length": str(len(content))}).items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            if name:
                self.server.downloaded.append(name)
            self.wfile.write(content)

    def log_message(self, *arguments: Any) -> None:
        pass


def _files(folder: Path) -> list[tuple[str, int]]:
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return [(path.relative_to(folder).as_posix(), path.stat().st_size) for path in paths]


@contextmanager
def hub_server(root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """Within, huggingface_hub takes this for the Hub."""
    with HubServer(root) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        files = f"{address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
        monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", files)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(root / "cache"))
        try:
            yield server
        finally:
            server.shutdown()
