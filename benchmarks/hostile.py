"""Ask the service what no honest client asks, beside clients that are honest.

    python -m benchmarks.hostile
    python -m benchmarks.hostile --model-path runs/merged --requests 5000 --output results.json

Starts `python -m llava.serve.api`, and sends `--requests` requests of the kinds in hostile_requests.py, some
at a time, while honest clients ask about pictures and without, streaming and not. It prints how each kind
ended, and fails (exit code 1) unless

- the service runs on, and ends with exit code 0 when it is asked to;
- each kind ends as it must: no status from 500 on but a 503 that says which limit it is;
- honest clients get the answers that they got before, or 429 and then the answer;
- resident memory, open files and threads are back at their level;
- the log has no traceback, and nothing of what was asked.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from io import BytesIO
from pathlib import Path
from random import Random
from typing import Any

import httpx2
import psutil
from PIL import Image
from rich.box import MARKDOWN
from rich.console import Console
from rich.table import Table

from benchmarks.hostile_requests import BUSY, KINDS, Kind, trap_reply
from benchmarks.hostile_target import SECRET, Target

REPO = Path(__file__).parent.parent
KEY = "the-key-of-this-benchmark"
LIMITS = ["--max-request-mib", "40", "--max-json-mib", "40", "--max-megapixels", "20", "--max-seconds", "60",
          "--max-receive-seconds", "4", "--max-address-seconds", "2", "--max-address-mib", "4",
          "--prefix-cache-mib", "16"]  # fmt: skip
SETTLE_SECONDS = 40.0  # longer than the service keeps an idle connection
# glibc gives what is above back to the system when it is freed; left to itself it raises the bound with use
MALLOC = {"MALLOC_MMAP_THRESHOLD_": str(4 * 2**20), "MALLOC_TRIM_THRESHOLD_": str(4 * 2**20)}
Answer = tuple[str, dict[str, float] | None]


@dataclass
class Level:
    """What the service holds."""

    memory: int
    files: int
    threads: int

    @classmethod
    def of(cls, process: psutil.Process) -> Level:
        """Measure it."""
        return cls(process.memory_info().rss, process.num_fds(), process.num_threads())

    def __str__(self) -> str:
        return f"{self.memory / 2**20:.0f} MiB, {self.files} files, {self.threads} threads"


@dataclass
class Findings:
    """What has come out so far."""

    outcomes: dict[str, Counter[str]] = field(default_factory=dict)
    wrong: Counter[str] = field(default_factory=Counter)
    honest_seconds: list[float] = field(default_factory=list)
    honest_retries: int = 0
    peak: Level = field(default_factory=lambda: Level(0, 0, 0))


@contextmanager
def service(model_path: Path, trap_port: int, log: Path) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """Run the service; yields its process and port."""
    key_file = log.with_name("key.txt")
    key_file.write_text(KEY)
    command = [sys.executable, "-m", "llava.serve.api", "--model-path", str(model_path), "--port", "0",
               "--model-name", "model", "--api-key-file", str(key_file),
               "--allow-address", f"127.0.0.1:{trap_port}", *LIMITS]  # fmt: skip
    with (
        log.open("wb") as stream,
        subprocess.Popen(
            command, stderr=stream, stdout=stream, cwd=REPO, env={**os.environ, **MALLOC}
        ) as process,
    ):
        try:
            while not (found := re.search(r"^serving .*:(\d+)/v1$", log.read_text(), re.MULTILINE)):
                if process.poll() is not None:
                    raise SystemExit(log.read_text())
                time.sleep(0.1)
            yield process, int(found[1])
        finally:
            process.kill()


# --- honest clients ------------------------------------------------------------------------------------


def honest_bodies() -> list[dict[str, Any]]:
    """Return what honest clients ask: about two pictures and without, streaming and not, with choices."""
    bodies: list[dict[str, Any]] = []
    for angle in (0, 90):
        file = BytesIO()
        Image.linear_gradient("L").rotate(angle).convert("RGB").save(file, "PNG")
        url = "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
        for text in ("What is it?", "Describe the image"):
            parts = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": text}]
            bodies.append({"messages": [{"role": "user", "content": parts}]})
    bodies.append({"messages": [{"role": "user", "content": "Is it broken?"}], "choices": ["Yes", "No"]})
    bodies.append({"messages": [{"role": "user", "content": "Name a colour"}]})
    bodies += [{**body, "stream": True} for body in bodies]
    return [{"model": "model", "max_tokens": 12, **body} for body in bodies]


async def ask(client: httpx2.AsyncClient, body: dict[str, Any], findings: Findings) -> Answer:
    """Return an answer and the probabilities of its choices; a refusal for want of room is tried again."""
    while True:
        begin = time.monotonic()
        reply = await client.post("/v1/chat/completions", json=body)
        if reply.status_code not in (429, 503):
            break
        findings.honest_retries += 1
        await asyncio.sleep(float(reply.headers.get("retry-after", "1")))
    findings.honest_seconds.append(time.monotonic() - begin)
    reply.raise_for_status()
    if not body.get("stream"):
        choice = reply.json()["choices"][0]
        return choice["message"]["content"], choice["choice_probabilities"]
    events = [line.removeprefix("data: ") for line in reply.text.splitlines() if line]
    if events.pop() != "[DONE]":
        raise ValueError(f"a stream ended without [DONE]: {reply.text[-300:]}")
    choices = [json.loads(event)["choices"][0] for event in events]
    text = "".join(choice["delta"].get("content", "") for choice in choices)
    return text, choices[-1].get("choice_probabilities")


def same(answer: Answer, expected: Answer) -> bool:
    """Return whether two answers are one; probabilities may differ by rounding."""
    probabilities, others = answer[1] or {}, expected[1] or {}
    return (
        answer[0] == expected[0]
        and probabilities.keys() == others.keys()
        and all(abs(value - others[choice]) < 1e-4 for choice, value in probabilities.items())
    )


async def be_honest(
    client: httpx2.AsyncClient, expected: list[Answer], findings: Findings, rng: Random, done: asyncio.Event
) -> None:
    """Ask one thing after the other until `done`, and compare."""
    bodies = honest_bodies()
    while not done.is_set():
        number = rng.randrange(len(bodies))
        try:
            if not same(await ask(client, bodies[number], findings), expected[number]):
                findings.wrong["an honest client got another answer"] += 1
        except (httpx2.HTTPError, ValueError, KeyError) as error:
            findings.wrong[f"an honest client got none: {type(error).__name__} {error}"[:150]] += 1
        await asyncio.sleep(rng.random() / 5)


# --- the attack ----------------------------------------------------------------------------------------


@asynccontextmanager
async def attacked(process: psutil.Process, findings: Findings) -> AsyncIterator[None]:
    """Measure the peak meanwhile."""

    async def watch() -> None:
        while True:
            with suppress(psutil.NoSuchProcess):
                level, peak = Level.of(process), findings.peak
                findings.peak = Level(*map(max, vars(level).values(), vars(peak).values()))
            await asyncio.sleep(0.1)

    watcher = asyncio.create_task(watch())
    try:
        yield
    finally:
        watcher.cancel()


async def attack(target: Target, kinds: list[Kind], at_once: int, findings: Findings, seed: int) -> None:
    """Send a request of each of `kinds`, some at a time."""
    waiting = iter(enumerate(kinds))

    async def send_next() -> None:
        for number, kind in waiting:
            try:
                ended = await kind.send(target, Random(f"{seed} {number}"))
            except OSError as error:
                ended = f"no connection: {error}"
            findings.outcomes.setdefault(kind.name, Counter())[ended] += 1
            if not re.fullmatch(f"{kind.may_end}|{BUSY}", ended):
                findings.wrong[f"{kind.name}: {ended}"] += 1

    await asyncio.gather(*(send_next() for _ in range(at_once)))


async def settled(process: psutil.Process, most_growth: int, level: Level | None = None) -> Level:
    """Wait until the service holds no more than at `level`, or for SETTLE_SECONDS; returns what it holds."""
    deadline = time.monotonic() + (SETTLE_SECONDS if level else 3)
    while time.monotonic() < deadline:
        now = Level.of(process)
        if level and now.files <= level.files and now.memory <= level.memory + most_growth:
            break
        await asyncio.sleep(0.5)
    return Level.of(process)


async def run(args: argparse.Namespace, console: Console) -> tuple[Findings, dict[str, Any]]:
    """Do all of it; returns what came out, and the figures."""
    rng = Random(args.seed)
    chosen = rng.choices(KINDS, [kind.weight for kind in KINDS], k=max(0, args.requests - len(KINDS)))
    kinds = [*KINDS, *chosen]
    rng.shuffle(kinds)
    findings, warm_up, calm = Findings(), Findings(), Findings()
    service_port, most_growth = 0, args.growth * 2**20

    async def trap(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await trap_reply(service_port, reader, writer)

    trap_server = await asyncio.start_server(trap, "127.0.0.1", 0)
    trap_port = trap_server.sockets[0].getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log.txt"
        with service(args.model_path, trap_port, log) as (popen, service_port):
            process = psutil.Process(popen.pid)
            target = Target(service_port, KEY, "model", trap_port)
            new_client = partial(
                httpx2.AsyncClient,
                base_url=f"http://127.0.0.1:{service_port}",
                headers={"Authorization": f"Bearer {KEY}"},
                timeout=120,
                trust_env=False,
            )
            async with new_client() as client:
                expected = [await ask(client, body, Findings()) for body in honest_bodies()]
                # what is allocated once is there before the level is measured
                await attack(target, KINDS * args.warm_up, args.at_once, warm_up, args.seed + 1)
                done = asyncio.Event()
                asyncio.get_running_loop().call_later(args.calm, done.set)
                await asyncio.gather(
                    *(be_honest(client, expected, calm, Random(n), done) for n in range(args.clients))
                )
            before = await settled(process, most_growth)
            begin = time.monotonic()
            async with attacked(process, findings), new_client() as client:
                done = asyncio.Event()
                honest = [
                    asyncio.create_task(be_honest(client, expected, findings, Random(n), done))
                    for n in range(args.clients)
                ]
                await attack(target, kinds, args.at_once, findings, args.seed)
                seconds = time.monotonic() - begin
                done.set()
                await asyncio.gather(*honest)
                answers = [await ask(client, body, Findings()) for body in honest_bodies()]
            if not all(map(same, answers, expected)):
                findings.wrong["answers are others than before"] += 1
            after = await settled(process, most_growth, before)
            popen.send_signal(signal.SIGTERM)
            code = await asyncio.to_thread(popen.wait, 60)
        text = log.read_text()
    trap_server.close()
    findings.wrong += warm_up.wrong
    if code != 0:
        findings.wrong[f"the service ended with exit code {code}"] += 1
    if after.memory > before.memory + most_growth or after.files > before.files:
        findings.wrong[f"more is held than before: {before} before, {after} after"] += 1
    if "Traceback" in text:
        findings.wrong["a traceback in the log: " + text[text.index("Traceback") :][-1500:]] += 1
    if SECRET in text:
        findings.wrong["the log has what was asked"] += 1
    figures = {"seconds": seconds, "before": vars(before), "peak": vars(findings.peak), "after": vars(after),
               "honest answers": len(findings.honest_seconds), "honest retries": findings.honest_retries,
               "calm seconds": quantiles(calm.honest_seconds),
               "attacked seconds": quantiles(findings.honest_seconds),
               "outcomes": findings.outcomes, "wrong": findings.wrong}  # fmt: skip
    console.print(table(findings))
    console.print(
        f"{len(kinds)} hostile requests in {seconds:.0f} s; {len(findings.honest_seconds)} honest answers,"
        f" {findings.honest_retries} tries again\n"
        f"seconds of an honest answer (p50, p99): {figures['calm seconds']} alone,"
        f" {figures['attacked seconds']} beside the hostile ones\n"
        f"before: {before}\npeak:   {findings.peak}\nafter:  {after}",
        highlight=False, markup=False,
    )  # fmt: skip
    return findings, figures


def quantiles(seconds: list[float]) -> tuple[float, float]:
    """Return the median and the 99th percentile."""
    ordered = sorted(seconds) or [0.0]
    return round(ordered[len(ordered) // 2], 2), round(ordered[int(len(ordered) * 0.99)], 2)


def table(findings: Findings) -> Table:
    """Return a row for each kind: how many there were, and how they ended."""
    rows = Table(box=MARKDOWN)
    rows.add_column("kind", no_wrap=True)
    rows.add_column("requests", justify="right")
    rows.add_column("how they ended", overflow="fold")
    for kind in KINDS:
        ended = findings.outcomes.get(kind.name, Counter())
        parts = (f"{count} x {short(name)}" for name, count in ended.most_common())
        rows.add_row(kind.name, str(ended.total()), "; ".join(parts))
    return rows


def short(ended: str) -> str:
    """Return an outcome for the table: of many replies the first, and how many."""
    first, *others = ended.split(", ")
    return ended if len(others) < 3 else f"{first} ({1 + len(others)} times)"


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.hostile", description=__doc__.splitlines()[0])
    parser.add_argument("--model-path", type=Path, default=REPO / "playground" / "tiny-llava")
    parser.add_argument("--requests", type=int, default=1000, help="hostile ones; at least one of each kind")
    parser.add_argument("--at-once", type=int, default=16, help="hostile requests at a time")
    parser.add_argument("--clients", type=int, default=4, help="honest ones")
    parser.add_argument("--warm-up", type=int, default=12, help="of each kind, before memory is measured")
    parser.add_argument("--growth", type=int, default=64, help="MiB that may be held more after than before")
    parser.add_argument("--calm", type=float, default=10.0, help="seconds with honest clients only")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, help="a JSON file for the figures")
    args = parser.parse_args(argv)
    console = Console(width=160)
    findings, figures = asyncio.run(run(args, console))
    if args.output:
        args.output.write_text(json.dumps(figures, indent=1))
    for what, count in findings.wrong.items():
        console.print(f"WRONG, {count} times: {what}", style="red", markup=False, highlight=False)
    return 1 if findings.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
