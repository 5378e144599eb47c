"""The Dockerfile, compose.yaml, the health check, and what checks the image without a container engine."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import yaml

from llava.serve import api, web
from tests.support.paths import REPO

sys.path.insert(0, str(REPO / "scripts"))

import check_image
from container_health import main as health
from container_health import server_of
from dockerfile import copy_context, expand, flags_of, is_ignored, steps_of

COMPOSE = yaml.safe_load((REPO / "compose.yaml").read_text(encoding="utf-8"))
STEPS = list(steps_of((REPO / "Dockerfile").read_text(encoding="utf-8")))


def test_steps_are_read() -> None:
    text = (
        '# syntax=x\n\nFROM a:1 AS b\nrun --mount=type=cache,target=/c x \\\n  # why\n    && y\nCMD ["z"]\n'
    )
    assert list(steps_of(text)) == [
        ("FROM", "a:1 AS b"),
        ("RUN", "--mount=type=cache,target=/c x      && y"),
        ("CMD", '["z"]'),
    ]
    assert flags_of("--from=a --mount=type=bind,from=b x --y=z") == (["a", "type=bind,from=b"], "x --y=z")
    assert expand("/a:$PATH:${B}:$C", {"PATH": "/p", "B": "b"}) == "/a:/p:b:"


def test_the_last_pattern_that_matches_decides() -> None:
    patterns = ["*", "!src", "!keep/this/", "**/__pycache__", "**/*.tmp"]
    taken = ["src/a.py", "src/b/c.py", "keep/this/x"]
    left = ["a.py", "keep/that/x", "src/__pycache__/a.pyc", "__pycache__/a", "src/b/c.tmp", "srcs/a"]
    assert [path for path in taken + left if not is_ignored(path, patterns)] == taken


def test_the_builder_gets_what_the_wheel_is_made_of_and_no_data(tmp_path: Path) -> None:
    there = ["llava/a/b.py", "configs/a.yaml", "playground/tiny-llava/config.json", "setup.py", "README.md"]
    not_there = [".venv/a", ".git/a", "runs/a", "playground/data_train/a.jpg", "tests/a.py", "key.txt"]
    for name in [*there, *not_there, "eval/__pycache__/a.pyc"]:
        (tmp_path / "here" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "here" / name).touch()
    shutil.copy(REPO / ".dockerignore", tmp_path / "here")
    copy_context(tmp_path / "here", tmp_path / "there")
    copied = {
        p.relative_to(tmp_path / "there").as_posix() for p in tmp_path.glob("there/**/*") if p.is_file()
    }
    assert copied == set(there)


def test_without_root_one_line_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(check_image.os, "geteuid", lambda: 1000)
    monkeypatch.setattr(check_image.shutil, "which", lambda name: f"/usr/bin/{name}")
    assert check_image.main([]) == 2
    assert capsys.readouterr().err.startswith("error: this needs root; ")
    monkeypatch.setattr(check_image.shutil, "which", lambda name: None)
    assert check_image.main([]) == 2
    assert capsys.readouterr().err.startswith("error: this needs debootstrap, chroot, ")


def test_the_image_runs_as_a_user_and_copies_files_that_there_are() -> None:
    users = [text for name, text in STEPS if name == "USER"]
    assert users == ["1000:1000"]
    for name, text in STEPS:
        flags, rest = flags_of(text)
        if name == "COPY" and not flags:
            assert all((REPO / file).exists() for file in rest.split()[:-1])


def test_hadolint_finds_nothing() -> None:
    program = shutil.which("hadolint", path=str(Path(sys.executable).parent)) or shutil.which("hadolint")
    if program is None:
        pytest.skip("hadolint is not installed: scripts/setup.sh dev")
    done = subprocess.run([program, "Dockerfile"], cwd=REPO, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_services_are_for_this_machine_and_change_no_model() -> None:
    names = {"page": ("web", web), "service": ("serve", api)}
    assert COMPOSE["services"].keys() == names.keys()
    override = yaml.safe_load((REPO / "compose.cuda.yaml").read_text(encoding="utf-8"))
    assert override["services"].keys() == names.keys()
    for name, service in COMPOSE["services"].items():
        assert all(port.startswith("127.0.0.1:") for port in service["ports"])
        assert any(volume.endswith("/model:ro") for volume in service["volumes"]) and service["read_only"]
        command, *flags = service["command"].replace("${MODEL_NAME:-model}", "m").split()
        module: Any
        expected, module = names[name]
        args = module.parse_arguments(flags)  # which ends with a mistake in them
        assert command == expected and args.host == "0.0.0.0"
        assert service["ports"][0].endswith(f":{args.port}")
        (check,) = [text for step, text in STEPS if step == "HEALTHCHECK"]
        assert service["healthcheck"]["test"][1:] == json.loads(check.partition("CMD ")[2])


def test_docker_reads_compose_yaml(tmp_path: Path) -> None:
    there = shutil.which("docker") is not None and subprocess.run(
        ["docker", "compose", "version"], capture_output=True, check=False
    )
    if not there or there.returncode != 0:
        pytest.skip("docker compose is not installed")
    files = ["-f", "compose.yaml", "-f", "compose.cuda.yaml"]
    subprocess.run(["docker", "compose", *files, "config", "--quiet"], cwd=REPO, check=True)


@pytest.mark.parametrize(
    ("command", "asked"),
    [
        ("python3 /x/llava-inspect serve --model-path m --host 0.0.0.0", ("127.0.0.1", 8000, "/health")),
        ("/sbin/docker-init -- llava-inspect serve --port=81 --host ::", ("::1", 81, "/health")),
        ("llava-inspect web --port 82", ("127.0.0.1", 82, "/")),
        ("llava-inspect train web --port", None),
        ("llava-inspect", None),
        ("sleep 1", None),
    ],
)
def test_what_is_asked_follows_from_the_command(command: str, asked: object) -> None:
    assert server_of(command.split()) == asked


@pytest.fixture
def server() -> Iterator[HTTPServer]:
    """A server whose status is its attribute `status`."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(self.server.status)  # type: ignore[attr-defined]
            self.end_headers()

        def log_message(self, *args: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_health_is_what_the_server_answers(
    server: HTTPServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    process = tmp_path / "cmdline"
    command = f"llava-inspect serve --port {server.server_port}"
    process.write_text(command.replace(" ", "\0") + "\0", encoding="utf-8")
    for status, code in ((200, 0), (401, 0), (503, 1)):
        server.status = status  # type: ignore[attr-defined]
        assert health(process) == code
    assert capsys.readouterr().err.endswith("/health: status 503\n")
    process.write_text("llava-inspect\0serve\0--port\x001\0", encoding="utf-8")
    assert health(process) == 1 and "refused" in capsys.readouterr().err
    process.write_text("llava-inspect\0train\0tiny_cpu\0", encoding="utf-8")
    assert health(process) == 0
