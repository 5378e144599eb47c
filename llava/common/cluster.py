"""Reach a Ray cluster, and run a function over many items on it. Ray is imported only then."""

from __future__ import annotations

import logging
import os
import pickle
import socket
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

from llava.common.environment import how_to_install
from llava.common.errors import InputError, one_line

Shared = TypeVar("Shared")
Item = TypeVar("Item")
Result = TypeVar("Result")

_OBJECT_STORE_BYTES = 256 << 20  # bytes of a local Ray's; no pictures pass through it
_MAX_BATCH = 16
"""Items that a task takes: so many that sending it costs little, and few to do again after a death."""
_AHEAD = 8  # batches a worker may be ahead of the first that is missing


def connect(address: str, cpus: int | None, module: str = "ray") -> None:
    """Connect this process to a Ray cluster, until `ray.shutdown()`.

    Args:
        address: `auto`, `local` (a Ray of this process's own), `HOST:PORT` or `ray://HOST:PORT`.
        cpus: What a local Ray may use; None: all there are.
        module: The part of Ray that is used; each has requirements of its own.

    Raises:
        InputError: Ray is not installed, or no cluster can be reached.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # or Ray reports on its use over the network
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # what fails for good comes as an exception
    try:
        import_module(module)
        import ray
    except ImportError:
        raise InputError(f"--ray needs: {how_to_install('ray')}") from None
    local: dict[str, Any] = {}
    if address == "local":
        local = {"include_dashboard": False, "object_store_memory": _OBJECT_STORE_BYTES, "num_cpus": cpus}
    _require_listener(address)
    try:
        ray.init(address, log_to_driver=False, logging_level=logging.ERROR, **local)
    except (ConnectionError, ValueError, RuntimeError, TimeoutError) as error:
        raise InputError(f"--ray {address}: no cluster can be reached ({one_line(error)})") from None


def _require_listener(address: str) -> None:
    """Raise InputError if `address` names a host and a port where nothing answers within 10 seconds.

    Ray itself tries for minutes, and may end the process.
    """
    host, separator, port = address.removeprefix("ray://").rpartition(":")
    if not separator or port.startswith("//"):
        return  # `local` and `auto`, where Ray looks on this machine, or another scheme's address
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
    except (OSError, ValueError, OverflowError) as error:
        raise InputError(f"--ray {address}: no cluster can be reached ({one_line(error)})") from None


def count_workers(resource: str, wanted: int | None) -> int:
    """Return how many workers the cluster has room for, each with one `resource` (`CPU` or `GPU`).

    InputError if there is none, or fewer than `wanted` (--ray-workers).
    """
    import ray

    available = int(ray.cluster_resources().get(resource, 0))
    workers = wanted or available
    if not 0 < workers <= available:
        raise InputError(f"--ray-workers {workers}: each needs a {resource}, the cluster has {available}")
    return workers


class Cluster:
    """A connected cluster whose CPUs run a function over many items; a context that disconnects at its end.

    Files must lie under the same paths on every machine. A task whose worker dies is run again by Ray: the
    function must not mind that it was begun before.
    """

    def __init__(self, address: str, workers: int | None) -> None:
        """Connect to `address` as `connect` does, to use `workers` CPUs there; None: all."""
        connect(address, workers)
        try:
            self._workers = count_workers("CPU", workers)
        except InputError:
            self.__exit__()
            raise

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *error: object) -> None:
        import ray

        ray.shutdown()  # ends what still runs

    def map(
        self, function: Callable[[Shared, Item], Result], shared: Shared, items: Sequence[Item]
    ) -> Iterator[Result]:
        """Yield `function(shared, item)` for each item, in the order of the items.

        At most `workers` batches of items run at a time, and a bounded number wait here for an earlier one.

        Args:
            function: A module's function, which the workers import.
            shared: Sent to each machine once.
            items: Sent in batches.

        Raises:
            InputError: Workers die again and again. What the function raises is raised as it is.
        """
        import ray
        from ray.exceptions import RayError, RayTaskError

        size = max(1, min(_MAX_BATCH, len(items) // (4 * self._workers)))
        task: Any = ray.remote(num_cpus=1)(_run_batch)
        there = ray.put(pickle.dumps(shared))
        running: list[Any] = []
        waiting: deque[Any] = deque()  # in the order of the items; the running ones too
        try:
            for start in range(0, len(items), size):
                batch = items[start : start + size]
                reference = task.remote(function, there, batch, str(Path.cwd()))
                running.append(reference)
                waiting.append(reference)
                while len(running) >= self._workers or len(waiting) >= _AHEAD * self._workers:
                    _, running = ray.wait(running)
                    while waiting and waiting[0] not in running:
                        yield from ray.get(waiting.popleft())
            while waiting:
                yield from ray.get(waiting.popleft())
        except RayTaskError as error:
            raise error.cause from error
        except RayError as error:
            raise InputError(f"Ray's workers fail ({one_line(error)})") from None


def _run_batch(
    function: Callable[[Any, Item], Result], pickled: bytes, batch: Sequence[Item], directory: str
) -> list[Result]:
    """Run a batch in `directory`, where the command was started, for names relative to it.

    What is shared is unpickled here: an InputError that Ray's own unpickling raises would come as text.
    """
    with suppress(OSError):  # absolute names need none
        os.chdir(directory)
    shared = pickle.loads(pickled)
    return [function(shared, item) for item in batch]
