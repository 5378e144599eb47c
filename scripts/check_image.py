"""Build and try the image of the Dockerfile without a container engine: in clean Debian roots, by chroot.

    sudo python3 scripts/check_image.py --build-arg EXTRAS=serve,web

Each stage starts from a Debian that debootstrap makes, of the suite that the base image's tag names;
Debian's own python3 stands in for the image's. Its steps are run one by one. Then the entry point is run as
the image's user and as one whom the image does not know, and the health check asks `serve` and `web`, which
show the embedded model. Needed are Linux, root and some GB for temporary files (TMPDIR). A step that fails
ends the check.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dockerfile import copy_context, expand, flags_of, steps_of

REPO = Path(__file__).resolve().parents[1]
PROGRAMS = ("debootstrap", "chroot", "unshare", "nsenter")
STRANGER = "54321:54321"
HEALTH_SECONDS = 180
BASE_ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root"}
SERVERS = {"serve": 18000, "web": 18001}


@dataclass
class Stage:
    """A stage as far as its steps have been run: its root folder and what the steps have set."""

    root: Path
    environment: dict[str, str] = field(default_factory=lambda: dict(BASE_ENVIRONMENT))
    arguments: dict[str, str] = field(default_factory=dict)
    folder: str = "/"
    user: str = "0:0"
    entry: list[str] = field(default_factory=list)
    health: list[str] = field(default_factory=list)


def copy(source: Path, text: str, stage: Stage) -> None:
    """Do a COPY from the folder `source`: the content of folders, and files under their names."""
    *names, last = text.split()
    target = stage.root / os.path.normpath(f"{stage.folder}/{last}").lstrip("/")
    for path in [source / name.lstrip("/") for name in names]:
        if path.is_dir():
            shutil.copytree(path, target, symlinks=True, dirs_exist_ok=True)
        else:
            target.mkdir(parents=True, exist_ok=True)  # the Dockerfile names folders only
            shutil.copy(path, target)


def start(stage: Stage, command: Sequence[str], user: str, binds: Sequence[Path] = ()) -> subprocess.Popen:
    """Start a command in a stage's root, as the first process of its own process namespace. /proc, /dev/shm
    and the folders `binds` of this machine are mounted for as long as it runs."""
    mounts = ["set -e", f"mount -t proc proc {stage.root}/proc", f"mount -t tmpfs shm {stage.root}/dev/shm"]
    for bind in binds:
        inside = stage.root / str(bind).lstrip("/")
        inside.mkdir(parents=True, exist_ok=True)
        mounts.append(f"mount --rbind {bind} {inside}")
    variables = stage.arguments | stage.environment
    chroot = ["chroot", f"--userspec={user}", str(stage.root), "env", "-i"]
    chroot += [f"{name}={value}" for name, value in variables.items()]
    chroot += ["sh", "-c", f'cd {stage.folder} && exec "$@"', "sh", *command]
    script = "\n".join([*mounts, f"exec {shlex.join(chroot)}"])
    return subprocess.Popen(["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", script])


def run(stage: Stage, command: Sequence[str], user: str, binds: Sequence[Path] = ()) -> None:
    """Run a command to its end; exit if it fails."""
    if code := start(stage, command, user, binds).wait():
        sys.exit(f"failed with exit code {code}")


def build(args: argparse.Namespace, work: Path) -> Stage:
    """Run all steps of the Dockerfile; return its last stage."""
    given = dict(pair.split("=", 1) for pair in args.build_arg)
    copy_context(REPO, work / "context")
    stages: dict[str, Stage] = {}
    for name, text in steps_of((REPO / "Dockerfile").read_text(encoding="utf-8")):
        print(f"\n{name} {text}", flush=True)
        if name == "FROM":
            base, _, label = text.partition(" AS ")
            stage = stages[label] = Stage(work / f"stage-{label}")
            if base in stages:
                inherited = stages[base]
                stage.environment, stage.arguments = dict(inherited.environment), dict(inherited.arguments)
                stage.folder = inherited.folder
            copy_root(stages[base].root if base in stages else debian(base, args, work), stage.root)
        elif name == "ARG":
            key, equals, default = text.partition("=")
            if equals or key in given:
                stage.arguments[key] = given.get(key, default)
        elif name == "ENV":
            known = stage.arguments | stage.environment
            pairs = [word.split("=", 1) for word in shlex.split(text)]
            stage.environment |= {key: expand(value, known) for key, value in pairs}
        elif name == "WORKDIR":
            stage.folder = text
            (stage.root / text.lstrip("/")).mkdir(parents=True, exist_ok=True)
        elif name == "COPY":
            flags, rest = flags_of(text)
            copy(stages[flags[0]].root if flags else work / "context", rest, stage)
        elif name == "RUN":
            flags, rest = flags_of(text)
            mounts = [dict(pair.split("=") for pair in flag.split(",")) for flag in flags]
            borrowed = {m["target"]: stages[m["from"]].root / m["source"][1:] for m in mounts if "from" in m}
            for target, source in borrowed.items():
                copy_root(source, stage.root / target[1:])
            run(stage, ["sh", "-c", rest], stage.user, args.bind)
            for target in borrowed:
                shutil.rmtree(stage.root / target[1:])
        elif name == "USER":
            stage.user = text
        elif name == "ENTRYPOINT":
            stage.entry = json.loads(text)
        elif name == "HEALTHCHECK":
            stage.health = json.loads(text.partition("CMD ")[2])
        elif name not in ("LABEL", "VOLUME", "EXPOSE", "CMD"):
            sys.exit(f"error: the Dockerfile has {name}, which is not known here")
    return stage


def debian(image: str, args: argparse.Namespace, work: Path) -> Path:
    """Return a root that stands in for an image such as python:3.12-slim-trixie."""
    suite = args.suite or image.rpartition("-")[2]
    root = work / suite
    if not root.is_dir():
        wanted = "--include=python3,python3-venv,ca-certificates"
        subprocess.run(["debootstrap", "--variant=minbase", wanted, suite, root, args.mirror], check=True)
        shutil.copy("/etc/resolv.conf", root / "etc/resolv.conf")
    return root


def copy_root(source: Path, target: Path) -> None:
    subprocess.run(["cp", "--archive", "--reflink=auto", source, target], check=True)


def check_server(stage: Stage, name: str, port: int) -> None:
    """Start `serve` or `web`, wait until the health check passes, and end it as `docker stop` does."""
    flags = ["--model-path", "playground/tiny-llava", "--host", "0.0.0.0", "--port", str(port)]
    process = start(stage, [*stage.entry, name, *flags], stage.user)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    while not (first := children.read_text(encoding="ascii").strip()) and process.poll() is None:
        time.sleep(0.1)
    ask = ["nsenter", f"--target={first}", "--mount", "--pid", "chroot", f"--userspec={stage.user}"]
    ask += [str(stage.root), "env", f"PATH={stage.environment['PATH']}", *stage.health]
    begun = time.monotonic()
    while (asked := subprocess.run(ask, capture_output=True, text=True, check=False)).returncode != 0:
        if process.poll() is not None or time.monotonic() - begun > HEALTH_SECONDS:
            process.kill()
            sys.exit(f"{name} does not get healthy: {asked.stderr}")
        time.sleep(2)
    print(f"{name}: healthy after {time.monotonic() - begun:.0f} s", flush=True)
    os.kill(int(first), signal.SIGTERM)
    if code := process.wait(60):
        sys.exit(f"{name}: exit code {code} at SIGTERM")


def main(argv: Sequence[str] | None = None) -> int:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument(
        "--build-arg", action="append", default=[], metavar="NAME=VALUE", help="as of docker build"
    )
    parser.add_argument(
        "--bind", type=Path, action="append", default=[], help="show a folder of this machine to the steps"
    )
    parser.add_argument("--suite", help="Debian's (default: that of the base image's tag)")
    parser.add_argument("--mirror", default="http://deb.debian.org/debian", help="of Debian's packages")
    args = parser.parse_args(argv)
    lacking = [program for program in PROGRAMS if shutil.which(program) is None]
    if lacking or os.geteuid() != 0:
        needed = ", ".join(lacking) or "root"
        print(
            f"error: this needs {needed}; with a container engine, run docker build instead", file=sys.stderr
        )
        return 2
    with tempfile.TemporaryDirectory(prefix="llava-image-") as folder:
        stage = build(args, Path(folder))
        for user in (stage.user, STRANGER):
            run(stage, [*stage.entry, "--version"], user)
        extras = dict(pair.split("=", 1) for pair in args.build_arg).get("EXTRAS", "serve,web").split(",")
        for name in filter(extras.__contains__, SERVERS):
            check_server(stage, name, SERVERS[name])
    print("the image works")
    return 0


if __name__ == "__main__":
    sys.exit(main())
