"""Share the work on many images among threads, or among the machines of a Ray cluster."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import TypeVar

from rich.console import Console
from rich.progress import track

from llava.common.cluster import Cluster

Shared = TypeVar("Shared")
Item = TypeVar("Item")
Result = TypeVar("Result")
Workers = int | Cluster
"""A number of threads, or a cluster."""


@contextmanager
def workers_of(args: argparse.Namespace) -> Iterator[Workers]:
    """Yield the workers that the flags name: `args.ray` with `args.ray_workers`, or `args.workers` threads.

    InputError if no cluster can be reached.
    """
    if args.ray is None:
        yield args.workers
    else:
        with Cluster(args.ray, args.ray_workers) as cluster:
            yield cluster


def share(
    function: Callable[[Shared, Item], Result],
    shared: Shared,
    items: Sequence[Item],
    about: str,
    workers: Workers,
) -> list[Result]:
    """Return `function(shared, item)` for each item, in the order of the items, and show the progress.

    Args:
        function: A module's function. A cluster may run it again for an item.
        shared: What it needs for every item.
        items: All of them.
        about: What they are called beside the progress.
        workers: Threads, for Pillow decodes, scales and encodes outside Python's lock; or a cluster.
    """
    pool = ThreadPoolExecutor(workers if isinstance(workers, int) else 1)
    try:
        results = (
            pool.map(partial(function, shared), items)
            if isinstance(workers, int)
            else workers.map(function, shared, items)
        )
        return list(track(results, about, len(items), console=Console(stderr=True), transient=True))
    finally:
        pool.shutdown(cancel_futures=True)  # an interrupted run does not first finish its pictures
