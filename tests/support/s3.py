"""An S3 server on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest

BUCKET = "photos"


@contextmanager
def s3_server() -> Iterator[Any]:
    """Run a server with an empty bucket, to which s3fs goes in this process and in those it starts; yields
    the file system."""
    s3fs = pytest.importorskip("s3fs")
    server_module = pytest.importorskip("moto.server")
    server = server_module.ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("NO_PROXY", "*")
        s3fs.S3FileSystem.clear_instance_cache()  # those know the address of an earlier server
        # what an earlier server was sent is in this process
        urlopen(Request(f"http://{host}:{port}/moto-api/reset", method="POST")).close()
        system = s3fs.S3FileSystem(skip_instance_cache=True)
        system.mkdir(BUCKET)
        try:
            yield system
        finally:
            server.stop()


def send(system: Any, folder: Path, name: str) -> Path:
    """Copy a folder's files into the bucket; return the path of their address."""
    for file in folder.rglob("*"):
        if file.is_file():
            system.put_file(str(file), f"{BUCKET}/{name}/{file.relative_to(folder).as_posix()}")
    return Path(f"s3://{BUCKET}/{name}")
