"""All that is claimed of a GPU, measured in one go; `benchmarks/on_gpu.sh OUT` starts it.

Each part is one or more of the benchmarks' own commands. It writes OUT/PART.json while it runs and when it
has ended, however it ended, and the next part starts. A part has a limit of its own, and all together
`--seconds`: what runs longer is ended, and its JSON says so and keeps the last lines that it wrote. At the
end, and at any time later with `python -m benchmarks.on_gpu_table OUT`, a table is made of what is there. Run
again with the same OUT, parts that went well are kept.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import on_gpu_table, warm_start
from benchmarks.train_speed import CONTENDERS
from llava.common.errors import InputError, run_command
from llava.common.files import require_here, write_json

GRACE = 10.0  # seconds between a command's own deadline and its end by force
LOG_LINES = 30
PATIENCE = 3  # times as long as on a GPU may a rehearsal take, on a CPU that is not alone
QUANT = "BENCHMARK_QUANT_SITE"
"""The variable that names a folder with bitsandbytes alone: PEFT imports it where it is seen, and importing
it sets CUDA up."""

LLAMAFACTORY = "BENCHMARK_LLAMAFACTORY"
"""The variable that names a Python which has LLaMA-Factory; it is left out where there is none."""


@dataclass(frozen=True)
class Command:
    """`python -m benchmarks.MODULE ARGUMENTS --output FILE`; `{scratch}` is a folder that all parts share.
    With `quant` the process sees bitsandbytes."""

    module: str
    arguments: str
    quant: bool = False

    def line(self, scratch: Path, output: Path) -> list[str]:
        """Return it as a process is started by it."""
        words = [word.replace("{scratch}", str(scratch)) for word in shlex.split(self.arguments)]
        if "LLaMA-Factory" in words:
            words += ["--llamafactory-python", os.environ[LLAMAFACTORY]]
        return [sys.executable, "-m", f"benchmarks.{self.module}", *words, "--output", str(output)]


@dataclass(frozen=True)
class Part:
    """What is done with a GPU, what on a CPU to try it out, the seconds that it is planned to take on an H100
    and the seconds after which it is ended."""

    name: str
    planned: int
    limit: int
    gpu: tuple[Command, ...]
    rehearsal: tuple[Command, ...]


_TRAIN = "--rounds 1 --gradient-checkpointing --folder {scratch}/train"
_CPU_TRAIN = "--warm-steps 1 --rounds 1 --gradient-checkpointing --folder {scratch}/train"
_FOUR = "--contenders ours 'ours flex' 'ours unpacked' TRL"
_THREE = "--contenders ours 'ours unpacked' TRL"
_BATCHED = "--contenders ours 'batched generate'"  # one at a time would take minutes
_ASKED = f"--device cuda --questions 1 8 --asked 32 --batch 32 {_BATCHED}"
EQUALITY = Part(
    "equality", 75, 120,
    (Command("on_gpu_equality", "--device cuda", quant=True),),
    (Command("on_gpu_equality", "--device cpu", quant=True),),
)  # fmt: skip
MEMORY = Part(
    "memory", 75, 120,
    (Command("on_gpu_memory", "--configs llava15_7b_lora llava16_mistral_7b_lora onevision_7b_lora"),),
    (Command("on_gpu_memory", "--device cpu --configs llava15_7b_lora"),),
)  # fmt: skip
MEMORY_4BIT = Part(
    "memory_4bit", 75, 120,
    (Command("on_gpu_memory", "--configs llava15_7b_qlora_12gb llava15_13b_qlora", quant=True),),
    (Command("on_gpu_memory", "--device cpu --configs llava15_7b_qlora_12gb"),),
)  # fmt: skip
TRAIN = Part(
    "train", 225, 280,
    (
        Command("train_speed", f"--device cuda --questions 8 --batch 64 --records 128 {_FOUR} {_TRAIN}"),
        Command("train_speed", f"--device cuda --questions 1 --batch 16 --records 48 {_FOUR} {_TRAIN}"),
    ),
    (
        Command("train_speed", f"--questions 8 --batch 8 --records 8 {_THREE} {_CPU_TRAIN}"),
        Command("train_speed", f"--questions 1 --batch 2 --records 2 {_THREE} {_CPU_TRAIN}"),
    ),
)  # fmt: skip
INFER = Part(
    "infer", 105, 140,
    (
        Command("infer_speed", f"--tokens 4 {_ASKED}"),
        Command("infer_speed", f"--tokens 128 {_ASKED}"),
    ),
    (
        Command("infer_speed", f"--questions 1 2 --tokens 2 --asked 2 --batch 2 {_BATCHED}"),
        Command("infer_speed", f"--questions 1 2 --tokens 4 --asked 2 --batch 2 {_BATCHED}"),
    ),
)  # fmt: skip
EXTRAS = Part(
    "extras", 50, 140,  # the profiles; LLaMA-Factory, in the time that is left, some 70 more
    (
        Command(
            "train_speed",
            "--profile --device cuda --questions 8 --batch 64 --records 64 --warm-steps 1 " + _TRAIN,
        ),
        Command("infer_profile", "--device cuda"),
        Command(
            "train_speed",
            "--device cuda --questions 8 --batch 64 --records 64 --contenders ours LLaMA-Factory " + _TRAIN,
        ),
    ),
    (
        Command("train_speed", f"--profile --questions 8 --batch 8 --records 8 {_CPU_TRAIN}"),
        Command("infer_profile", "--device cpu --tokens 5"),
        Command(
            "train_speed",
            f"--questions 1 --batch 2 --records 2 --contenders ours LLaMA-Factory {_CPU_TRAIN}",
        ),
    ),
)  # fmt: skip
GROUPS = ((EQUALITY, MEMORY, MEMORY_4BIT), (TRAIN,), (INFER,), (EXTRAS,))
"""By their worth, should time run out. Those of a group run side by side: the first measure no time."""
PARTS = {part.name: part for group in GROUPS for part in group}
START = 25  # seconds planned for installing and importing


class Running:
    """A part on its way: its commands one after the other."""

    def __init__(
        self, part: Part, commands: Sequence[Command], out: Path, scratch: Path, deadline: float
    ) -> None:
        self.part = part
        self.file = out / f"{part.name}.json"
        self._scratch = scratch
        self._left = list(commands)
        self._done: list[dict[str, Any]] = []
        self._began = time.time()
        self._deadline = deadline
        self._log = scratch / f"{part.name}.log"
        self._log.write_bytes(b"")
        self._process: warm_start.Process | None = None
        self._command: dict[str, Any] = {}
        self._shown = ""

    def poll(self) -> bool:
        """Go on with what is to be done next; return whether the part is over."""
        if self._process is None:
            if not self._left:
                return True
            self._start(self._left.pop(0))
        assert self._process is not None
        code = self._process.poll()
        if code is None and time.time() > self._deadline + GRACE:
            self._process.kill()
            code = warm_start.CUT
        if code is not None:
            self._end(code)
        self.write()
        return self._process is None and not self._left

    def _start(self, command: Command) -> None:
        output = self._scratch / f"{self.part.name}_{len(self._done)}.json"
        output.unlink(missing_ok=True)
        line = command.line(self._scratch, output)
        env = {**os.environ, warm_start.DEADLINE: str(self._deadline)}
        if command.quant and QUANT in os.environ:
            env["PYTHONPATH"] = os.pathsep.join([os.environ[QUANT], env.get("PYTHONPATH", "")])
        self._command = {"command": " ".join(["python", *line[1:-2]]), "output": output, "began": time.time()}
        with self._log.open("ab") as log:
            self._process = warm_start.Process(line, env, log.fileno(), log.fileno())

    def _end(self, code: int) -> None:
        output, began = self._command.pop("output"), self._command.pop("began")
        try:
            found = json.loads(output.read_text())
        except (OSError, ValueError):  # not written, or cut while it was
            found = None
        late = time.time() > self._deadline
        cut = code == warm_start.CUT or (late and (code != 0 or bool(self._left)))
        seconds = round(time.time() - began, 1)
        self._done.append({**self._command, "code": code, "cut": cut, "seconds": seconds, "found": found})
        self._process = None
        if late:
            self._left.clear()

    def stop(self) -> None:
        """End what runs; its JSON stays as it is."""
        if self._process is not None:
            self._process.kill()

    def write(self) -> None:
        """Write the part's JSON, if it would say something new."""
        lines = self._log.read_text(errors="replace").splitlines()
        content = {
            "part": self.part.name,
            "status": self._status(),
            "planned": self.part.planned,
            "limit": self.part.limit,
            "commands": self._done,
            "running": self._command.get("command") if self._process else None,
            "log": [line[:300] for line in lines if line.strip()][-LOG_LINES:],
        }
        if (text := json.dumps(content)) != self._shown:
            self._shown = text
            write_json(self.file, {**content, "seconds": round(time.time() - self._began, 1)})

    def _status(self) -> str:
        if self._process or self._left:
            return "running"
        if any(command["cut"] for command in self._done):
            return "cut"
        return "done" if all(command["code"] == 0 for command in self._done) else "failed"


def run_group(parts: Sequence[Part], options: argparse.Namespace, scratch: Path, end: float) -> None:
    """Run parts side by side to their ends."""
    running = []
    for part in parts:
        file = options.out / f"{part.name}.json"
        if part.name not in options.parts:
            continue
        if file.is_file() and json.loads(file.read_text())["status"] == "done":
            print(f"{part.name}: is there", flush=True)
        elif time.time() > end - GRACE:
            print(f"{part.name}: no time is left for it", flush=True)
        else:
            known = "LLaMA-Factory" in CONTENDERS and LLAMAFACTORY in os.environ
            commands = [
                command
                for command in (part.rehearsal if options.rehearse else part.gpu)
                if known or "LLaMA-Factory" not in command.arguments
            ]
            deadline = min(time.time() + part.limit * (PATIENCE if options.rehearse else 1), end)
            running.append(Running(part, commands, options.out, scratch, deadline))
    try:
        while running:
            for this in list(running):
                if this.poll():
                    running.remove(this)
                    content = json.loads(this.file.read_text())
                    print(f"{content['part']}: {content['status']}, {content['seconds']} s", flush=True)
            time.sleep(0.2)
    finally:
        for this in running:
            this.stop()


def can_fork() -> bool:
    """Tell whether a forked process can use CUDA: not if an import here has set it up already."""
    import torch

    pid = os.fork()
    if pid == 0:
        try:
            torch.zeros(1, device="cuda")
            os._exit(0)
        except RuntimeError as error:
            print(error, flush=True)
        os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def main(argv: Sequence[str] | None = None) -> int:
    planned = ", ".join(f"{part.name} {part.planned} (ended at {part.limit})" for part in PARTS.values())
    parser = argparse.ArgumentParser(
        prog="benchmarks/on_gpu.sh",
        description=__doc__,
        epilog=f"Seconds planned on an H100: start {START}, {planned}; the first three run side by side.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("out", type=Path, metavar="OUT", help="the folder for the parts' JSON and the table")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="only these")
    parser.add_argument("--rehearse", action="store_true", help="every part on a CPU, at a tiny shape")
    parser.add_argument("--seconds", type=float, default=455, help="for all parts together (%(default)s)")
    parser.add_argument("--scratch", type=Path, help="an existing folder for a 7B's weights (14 GB)")
    options = parser.parse_args(argv)
    end = time.time() + options.seconds * (PATIENCE if options.rehearse else 1)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that 14 GB of weights go, too
    require_here(options.out)
    options.out.mkdir(parents=True, exist_ok=True)
    os.environ |= {"TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1"}
    os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"  # else to ask for a GPU is to set CUDA up
    if options.rehearse:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    import torch  # behind the variables that it reads, and behind --help

    if not (options.rehearse or torch.cuda.is_available()):
        raise InputError("no CUDA device is here; --rehearse runs every part on a CPU")
    with tempfile.TemporaryDirectory(prefix="on-gpu-", dir=options.scratch) as folder:
        scratch = Path(folder)
        for absent in warm_start.import_all():
            print(f"absent: {absent}", flush=True)
        warm_start.take_over(warm=True)
        if not (options.rehearse or can_fork()):
            print("CUDA is set up by an import: every process imports anew, which takes longer", flush=True)
            warm_start.take_over(warm=False)
        for group in GROUPS:
            run_group(group, options, scratch, end)
            if on_gpu_table.read_parts(options.out):
                on_gpu_table.write(options.out)  # a run that is cut later has one
    print(on_gpu_table.write(options.out))
    return 0


if __name__ == "__main__":
    run_command(main)
