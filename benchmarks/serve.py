"""Measure the service under load, against one `generate` at a time behind the same protocol.

    python -m benchmarks.serve --output results.json
    python -m benchmarks.serve --model-path playground/tiny-llava --clients 1 8
    python -m benchmarks.serve --device cuda --requests 128 --tokens 64

A random model is served (in float32 on the CPU: images of 576 tokens, a vision tower of 5 layers x 192, a
language model of 4 layers x 256; on CUDA LLaVA-1.5-7B's shape in bfloat16), or that of --model-path. Clients
send one request after the other, each a JPEG of 336 x 336 pixels and a question; answers are streamed.
The answers are compared with those of `Engine.answer`; on a CPU all must be equal. With --model-path
`transformers serve` runs too (`pip install 'transformers[serving]'`).

Besides: the time to the first token of a first and a second question about a picture, and that of a client
that comes while 31 others are being answered.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import itertools
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from rich.box import MARKDOWN
from rich.console import Console
from rich.table import Table

from benchmarks.train_job import image, question_and_answer

CONTENDERS = {"ours": "ours", "one at a time": "plain"}  # and their steps in benchmarks/serve_contenders.py
TRANSFORMERS = "transformers serve"  # reads a model's folder, and so runs with --model-path alone
MODEL = "served"
START_SECONDS = 300
CROWD = 31  # answers that are being written when another client comes
CROWD_TOKENS = 1000  # of each: longer than the test lasts
PROBES = 5  # of each kind; the median counts
Figures = dict[str, Any]


@dataclass(frozen=True)
class Question:
    """A picture's file and what is asked about it."""

    picture: Path
    text: str

    def body(self, tokens: int, model: str = MODEL) -> dict[str, Any]:
        """Return the request for a chat completion."""
        url = "data:image/jpeg;base64," + base64.b64encode(self.picture.read_bytes()).decode()
        content = [
            {"type": "image_url", "image_url": {"url": url}},
            {"type": "text", "text": self.text},
        ]
        messages = [{"role": "user", "content": content}]
        return {
            "model": model, "messages": messages, "max_tokens": tokens, "temperature": 0, "stream": True,
        }  # fmt: skip


@dataclass
class Reply:
    """An answer, and the seconds from its request to its first part and to its end."""

    text: str = ""
    first: float = field(default=float("nan"))
    whole: float = field(default=float("nan"))


class QuestionMaker:
    """Makes questions about pictures that no question before was about."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._pictures = 0
        self._rng = np.random.default_rng(0)

    def make(self, pictures: int, each: int = 1) -> list[Question]:
        """Make `each` questions about each of some new pictures, picture by picture."""
        questions = []
        for number in range(self._pictures, self._pictures + pictures):
            path = self._folder / f"{number:04d}.jpg"
            image(number).save(path, quality=90)
            questions += [Question(path, question_and_answer(self._rng)[0]) for _ in range(each)]
        self._pictures += pictures
        return questions


async def pieces(client: httpx.AsyncClient, body: dict[str, Any]) -> AsyncIterator[str]:
    """Yield the parts of a streamed answer; RuntimeError where there is none."""
    async with client.stream("POST", "/v1/chat/completions", json=body) as response:
        if response.status_code != 200:
            raise RuntimeError(f"{response.status_code}: {(await response.aread()).decode()[:300]}")
        async for line in response.aiter_lines():
            data = line.removeprefix("data: ")
            if not line or data == "[DONE]":
                continue
            event = json.loads(data)
            if "error" in event:
                raise RuntimeError(str(event["error"]))
            for choice in event["choices"]:
                if "content" in choice["delta"]:  # some send the role alone, at once
                    yield choice["delta"]["content"] or ""


async def ask(client: httpx.AsyncClient, body: dict[str, Any]) -> Reply:
    reply, begin = Reply(), time.perf_counter()
    async for text in pieces(client, body):
        if np.isnan(reply.first):
            reply.first = time.perf_counter() - begin
        reply.text += text
    reply.whole = time.perf_counter() - begin
    return reply


async def load(url: str, bodies: Sequence[dict[str, Any]], clients: int) -> tuple[list[Reply], float]:
    """Have so many clients send the requests, each its next one when it has its answer."""
    replies = [Reply()] * len(bodies)
    left = iter(range(len(bodies)))
    async with connect(url) as client:

        async def send() -> None:
            for number in left:
                replies[number] = await ask(client, bodies[number])

        begin = time.perf_counter()
        await asyncio.gather(*(send() for _ in range(clients)))
        return replies, time.perf_counter() - begin


def connect(url: str) -> httpx.AsyncClient:
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    return httpx.AsyncClient(base_url=url, timeout=None, limits=limits, trust_env=False)


async def second_questions(url: str, bodies: Sequence[dict[str, Any]]) -> tuple[float, float]:
    """Return the median seconds to the first token of a first and of a second question about a picture."""
    waits: list[float] = []
    async with connect(url) as client:
        for body in bodies:  # two of each picture
            waits.append((await ask(client, body)).first)
    return float(np.median(waits[::2])), float(np.median(waits[1::2]))


async def beside_crowd(
    url: str, crowd: Sequence[Question], probes: Sequence[Question], tokens: int
) -> tuple[float, int]:
    """Return the median seconds to the first token while other answers are being written.

    The probes come one after the other, each about another picture, once all the others have their first
    token; so none waits for a place, or for another picture to be read.

    Returns:
        The seconds, and how many of the others still ran after the last probe.
    """
    async with connect(url) as client:
        begun = asyncio.Semaphore(0)

        async def write(question: Question) -> None:
            waiting = True
            async for _ in pieces(client, question.body(tokens)):
                if waiting:
                    begun.release()
                waiting = False

        tasks = [asyncio.create_task(write(question)) for question in crowd]
        for _ in tasks:
            await begun.acquire()
        waits = [(await ask(client, question.body(2))).first for question in probes]
        running = sum(not task.done() for task in tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return float(np.median(waits)), running


@contextmanager
def process(step: str, job: dict[str, Any], folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run `transformers serve`, or a step of benchmarks/serve_contenders.py, during the block."""
    path = folder / f"{step}.job"
    path.write_text(json.dumps(job, default=str), encoding="utf-8")
    command = [sys.executable, "-m", "benchmarks.serve_contenders", step, str(path)]
    if step == TRANSFORMERS:
        program = Path(sys.executable).with_name("transformers")
        command = [str(program), "serve", job["model_path"], "--port", str(job["port"])]
        command += ["--device", job["device"]]
    environment = {**os.environ, "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
    if job["device"] == "cpu":
        environment["CUDA_VISIBLE_DEVICES"] = ""
    with (folder / f"{step}.log").open("wb") as log:
        running = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        try:
            yield running
        finally:
            running.terminate()
            running.wait()


def wait_for(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    """Return once a server answers; SystemExit where it does not."""
    for _ in range(10 * START_SECONDS):
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(f"{url}/health", trust_env=False).status_code == 200:
                return
        if server.poll() is not None:
            raise SystemExit(f"a server ended:\n{log.read_text(errors='replace')[-1500:]}")
        time.sleep(0.1)
    raise SystemExit(f"{url} did not answer within {START_SECONDS} s")


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def measure(args: argparse.Namespace, folder: Path, console: Console) -> Figures:
    """Run all cases with all contenders, one contender after the other; ours first."""
    maker = QuestionMaker(folder)
    steps = CONTENDERS | ({TRANSFORMERS: TRANSFORMERS} if args.model_path else {})
    cases = {
        (name, each, clients): maker.make(args.requests // each, each)
        for name in steps
        for each in args.questions
        for clients in args.clients
    }
    asked = [question for questions in cases.values() for question in questions]
    job = {"device": args.device, "model_path": args.model_path, "model": MODEL, "tokens": args.tokens}
    answers = folder / "answers.json"
    pairs = [(question.picture, question.text) for question in asked]
    found: Figures = {"runs": []}
    with ExitStack() as stack:
        jobs = {name: {**job, "port": free_port()} for name in steps}
        servers = {
            name: stack.enter_context(process(step, jobs[name], folder)) for name, step in steps.items()
        }
        with process("reference", {**job, "questions": pairs, "answers": answers}, folder) as reference:
            if reference.wait():
                raise SystemExit((folder / "reference.log").read_text(errors="replace")[-1500:])
        expected = dict(zip(asked, json.loads(answers.read_text(encoding="utf-8")), strict=True))
        for name, server in servers.items():
            url = f"http://127.0.0.1:{jobs[name]['port']}"
            model = str(args.model_path) if name == TRANSFORMERS else MODEL
            wait_for(url, server, folder / f"{steps[name]}.log")
            asyncio.run(load(url, [q.body(4, model) for q in maker.make(4, 2)], 4))  # warm-up
            for each, clients in itertools.product(args.questions, args.clients):
                questions = cases[name, each, clients]
                bodies = [question.body(args.tokens, model) for question in questions]
                replies, seconds = asyncio.run(load(url, bodies, clients))
                same = sum(r.text.strip() == expected[q] for q, r in zip(questions, replies, strict=True))
                run = {
                    "contender": name, "questions": each, "clients": clients, "seconds": seconds,
                    "requests": len(questions), "same": same / len(questions),
                    "first": [reply.first for reply in replies], "whole": [reply.whole for reply in replies],
                }  # fmt: skip
                found["runs"].append(run)
                console.print(
                    f"{name}, {each} a picture, {clients} clients: {rate(run):.2f} requests/s, "
                    f"first token after {1000 * np.median(run['first']):.0f} ms"
                )
            first, second = asyncio.run(
                second_questions(url, [q.body(2, model) for q in maker.make(PROBES, 2)])
            )
            found[f"second question, {name}"] = {"first": first, "second": second}
            console.print(
                f"{name}: first token of a first question about a picture {1000 * first:.0f} ms, of a second "
                f"{1000 * second:.0f} ms ({second / first:.2f} of it)"
            )
            if name != "ours":
                continue
            crowd, probes = maker.make(CROWD), maker.make(PROBES)
            wait, running = asyncio.run(beside_crowd(url, crowd, probes, args.crowd_tokens))
            found["crowd"] = {"wait": wait, "running": running}
            console.print(
                f"ours: first token beside {running} of {CROWD} answers {1000 * wait:.0f} ms, "
                f"{wait / first:.1f} times that of a client alone"
            )
    return found


def rate(run: Figures) -> float:
    """Return the requests a second."""
    return float(run["requests"] / run["seconds"])


def table(runs: Sequence[Figures]) -> Table:
    """Return a row per case and contender; times are in milliseconds."""
    rows = Table(box=MARKDOWN)
    for heading in ("questions a picture", "clients", "contender"):
        rows.add_column(heading)
    for heading in (
        "requests/s", "times one at a time", "first token, p50", "p99", "whole answer, p50", "p99 ",
        "same answers",
    ):  # fmt: skip
        rows.add_column(heading, justify="right")
    plain_rates = {
        (run["questions"], run["clients"]): rate(run) for run in runs if run["contender"] == "one at a time"
    }
    for run in sorted(runs, key=lambda run: (-run["questions"], run["clients"])):
        key = (run["questions"], run["clients"])
        times = [
            f"{1000 * np.percentile(run[name], share):,.0f}"
            for name in ("first", "whole")
            for share in (50, 99)
        ]
        rows.add_row(
            str(run["questions"]), str(run["clients"]), run["contender"], f"{rate(run):.2f}",
            f"{rate(run) / plain_rates[key]:.1f}", *times, f"{run['same']:.0%}",
        )  # fmt: skip
    return rows


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model-path", help="a model's folder (default: a random model)")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--questions", type=int, nargs="+", default=[8, 1], help="questions a picture")
    parser.add_argument("--requests", type=int, default=64, help="of each case (%(default)s)")
    parser.add_argument("--tokens", type=int, default=32, help="of an answer, at most (%(default)s)")
    parser.add_argument("--crowd-tokens", type=int, default=CROWD_TOKENS, help="%(default)s")
    parser.add_argument("--output", type=Path, help="all figures as JSON")
    args = parser.parse_args(argv)
    if any(args.requests % questions for questions in args.questions):
        parser.error("--requests must be a multiple of every number of --questions")
    console = Console(width=170, highlight=False)
    with tempfile.TemporaryDirectory() as folder:
        found = measure(args, Path(folder), console)
    console.print(table(found["runs"]))
    if args.output:
        args.output.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    if args.device == "cpu" and any(run["same"] < 1 for run in found["runs"]):
        console.print("NOT COMPARABLE: answers differ from those of Engine.answer")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
