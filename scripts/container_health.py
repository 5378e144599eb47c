"""Tell whether what a container was started for works: the health check of the Dockerfile and compose.yaml.

`llava-inspect serve` and `web` are asked at the port of their command line. Any other command, such as
`train`, works as long as it runs.
"""

from __future__ import annotations

import argparse
import http.client
import sys
from collections.abc import Sequence
from pathlib import Path

SERVERS = {"serve": ("8000", "/health"), "web": ("7860", "/")}
"""Their default ports, and what is asked for."""
SECONDS = 8


def server_of(command: Sequence[str]) -> tuple[str, int, str] | None:
    """Return host, port and path to ask for, by the command line of a container's first process; None if it
    serves nothing. An init process may stand before the command."""
    words = iter(command)
    for word in words:
        if Path(word).name == "llava-inspect":
            break
    name = next(words, "")
    if name not in SERVERS:
        return None
    port, path = SERVERS[name]
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", default=port)
    args, _ = parser.parse_known_args(list(words))
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(args.host, args.host)
    return host, int(args.port), path


def problem_of(host: str, port: int, path: str) -> str | None:
    """Ask a server; return what is wrong, None if it answers. To ask for a password is to answer."""
    connection = http.client.HTTPConnection(host, port, timeout=SECONDS)  # which goes through no proxy
    try:
        connection.request("GET", path)
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        return f"http://{host}:{port}{path}: {error}"
    finally:
        connection.close()
    return None if status < 500 else f"http://{host}:{port}{path}: status {status}"


def main(first_process: Path = Path("/proc/1/cmdline")) -> int:
    server = server_of(first_process.read_text(encoding="utf-8", errors="replace").split("\0"))
    problem = None if server is None else problem_of(*server)
    if problem is not None:
        print(problem, file=sys.stderr)
    return int(problem is not None)


if __name__ == "__main__":
    sys.exit(main())
