"""Measures how long a training takes to its first step, and what memory it holds, by the number of records.

    python -m benchmarks.scale 20000 100000 --output runs/bench_scale
    python -m benchmarks.scale 665000 --plan --output runs/bench_scale
    python -m benchmarks.scale 700 --output runs/bench_scale_try

Seven records are about each picture (a JPEG of 336 x 252 pixels, copies of a hundred different ones in files
of their own). The command is `python -m llava.train` with the embedded base: once without a token cache and
once with it (a resumed run, or another on the same data), each as one process and as two. With `--plan` it is
the dry run, of the embedded base's shape at 336 pixels: 576 tokens a picture.

A line for each: the seconds to the first step (to the plan), by the clock and of the CPU, and how many more
they are than those of 700 records, which Python and its libraries take; the most memory that all processes
hold together, shared pages counted once (proportional set size), and how much more it is; and of that, what
is no file's.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import psutil
from PIL import Image

from llava.common.files import write_json, write_json_list
from llava.common.shipped import shipped_root

QUESTIONS = 7
SMALL = 700
BASE = shipped_root() / "playground" / "tiny-llava"
_DIFFERENT = 100  # pictures
_POLL_SECONDS = 0.3


@dataclass(frozen=True)
class Start:
    """What one start took."""

    records: int
    processes: int
    cached: bool
    seconds: float
    cpu_seconds: float
    """Of all processes together; other work beside them counts less here than in `seconds`."""
    shared_mb: float
    """Proportional set size of all processes together at its most."""
    private_mb: float
    """Of that, what is of no file."""


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("records", nargs="+", type=int, help="numbers of records")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--plan", action="store_true", help="measure the dry run, at 576 tokens a picture")
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    base = large_base(args.output / "base") if args.plan else BASE
    found: list[Start] = []
    for records in dict.fromkeys([SMALL, *args.records]):
        data = make_data(args.output / f"data{records}", records)
        for processes in args.processes:
            cache = args.output / "token_cache"
            shutil.rmtree(cache, ignore_errors=True)
            for cached in (False, True):
                start = measure(base, data, cache, args.output / "run", processes, plan=args.plan)
                found.append(Start(records, processes, cached, *start))
                print(found[-1], flush=True)
    write_json(args.output / "scale.json", [asdict(start) for start in found])
    print("\n".join(table(found)))
    return 0


def make_data(folder: Path, records: int) -> Path:
    """Write the pictures and train.json, unless they are there."""
    if (folder / "train.json").exists():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    different = []
    for number in range(_DIFFERENT):
        cells = random.integers(0, 256, (9, 12, 3), dtype=np.uint8)
        file = folder / f"different{number}.jpg"
        Image.fromarray(cells).resize((336, 252), Image.Resampling.BICUBIC).save(file, quality=85)
        different.append(file.read_bytes())
    pictures = -(-records // QUESTIONS)
    for number in range(pictures):
        (folder / f"{number:07d}.jpg").write_bytes(different[number % _DIFFERENT])

    def rows() -> Iterator[dict[str, object]]:
        kinds = ("bird nest", "broken disc", "flashover", "missing disc", "pollution", "rust", "crack")
        for index in range(records):
            picture, kind = index // QUESTIONS, kinds[index % QUESTIONS]
            answer = random.choice(["Yes.", "No.", f"Yes, there is a {kind} on one of its discs."])
            yield {
                "id": f"{picture:07d}-{index % QUESTIONS}",
                "image": f"{picture:07d}.jpg",
                "conversations": [
                    {
                        "from": "human",
                        "value": f"<image>\nDoes the insulator in photo {picture} have a {kind}?",
                    },
                    {"from": "gpt", "value": str(answer)},
                ],
                "meta": {
                    "source": "scale",
                    "group": f"g{picture // 3}",
                    "task": "presence",
                    "language": "en",
                },
            }

    write_json_list(folder / "train.json", rows())
    return folder


def large_base(folder: Path) -> Path:
    """Write the embedded base's files without weights, for pictures of 336 pixels in patches of 14."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(BASE, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    for name, edit in (("config.json", _enlarge), ("preprocessor_config.json", _enlarge_pictures)):
        content = json.loads((folder / name).read_text())
        edit(content)
        (folder / name).write_text(json.dumps(content))
    return folder


def _enlarge(config: dict) -> None:
    config["vision_config"] |= {"image_size": 336, "patch_size": 14}
    config["text_config"]["max_position_embeddings"] = 4096


def _enlarge_pictures(config: dict) -> None:
    for name in ("size", "crop_size"):
        if name in config:
            config[name] = {"height": 336, "width": 336}


def measure(
    base: Path, data: Path, cache: Path, run: Path, processes: int, *, plan: bool
) -> tuple[float, float, float, float]:
    """Start a training; return the seconds to its first step or plan, by the clock and of the CPU, and the
    most MB that it held: shared pages once, and private ones."""
    shutil.rmtree(run, ignore_errors=True)
    settings = [
        "tiny_cpu", f"model_name_or_path={base}", f"data_path={data / 'train.json'}", "val_path=null",
        f"image_folder={data}", f"output_dir={run}", f"token_cache={cache}", "max_steps=1", "logging_steps=1",
        "max_length=4096", "gradient_accumulation_steps=1", "dtype=float32",
    ]  # fmt: skip
    command = [sys.executable, "-m"]
    if processes > 1:
        command += ["llava.common.launch", f"--nproc-per-node={processes}", "--master-port=29511", "-m"]
    command += ["llava.train", *settings, *(["--dry-run"] if plan else [])]
    mark = re.compile(rb"fits|may not fit" if plan else rb"step 1/1 ")
    began = time.monotonic()
    log = run.with_suffix(".log")
    with log.open("wb") as file:
        process = subprocess.Popen(
            command, stdout=file, stderr=subprocess.STDOUT, env={**os.environ, "OMP_NUM_THREADS": "1"}
        )
    shared = private = seconds = cpu = 0.0
    while process.poll() is None:
        time.sleep(_POLL_SECONDS)
        both = [_memory(one) for one in _family(process.pid)]
        shared = max(shared, sum(pss for pss, _ in both))
        private = max(private, sum(uss for _, uss in both))
        if not seconds and mark.search(log.read_bytes()):
            seconds = time.monotonic() - began
            cpu = sum(_cpu_seconds(one) for one in _family(process.pid))
    if process.returncode or not seconds:
        raise SystemExit(f"{' '.join(map(str, command))} failed:\n{log.read_text()[-2000:]}")
    return round(seconds, 1), round(cpu, 1), round(shared / 1e6), round(private / 1e6)


def _family(pid: int) -> list[psutil.Process]:
    try:
        parent = psutil.Process(pid)
        return [parent, *parent.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _cpu_seconds(process: psutil.Process) -> float:
    try:
        times = process.cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    return float(times.user + times.system)


def _memory(process: psutil.Process) -> tuple[float, float]:
    """Return a process's proportional set size and how much of it is of no file, in bytes (Linux)."""
    try:
        text = Path(f"/proc/{process.pid}/smaps_rollup").read_text()
    except OSError:
        return 0.0, 0.0
    sizes = {name: 1024.0 * int(size) for name, size in re.findall(r"(?m)^(Pss|Pss_Anon): +(\d+) kB", text)}
    return sizes.get("Pss", 0.0), sizes.get("Pss_Anon", 0.0)


def table(found: list[Start]) -> Iterator[str]:
    """Yield the lines of a Markdown table."""
    small = {(start.processes, start.cached): start for start in found if start.records == SMALL}
    yield "| records | processes | cache | seconds | more | CPU seconds | more | MB | more | of no file |"
    yield "|---:|---:|---|---:|---:|---:|---:|---:|---:|---:|"
    for start in found:
        least = small[start.processes, start.cached]
        cells = [
            f"{start.records:,} | {start.processes} | {'there' if start.cached else 'made'}",
            f"{start.seconds:.1f} | {start.seconds - least.seconds:+.1f}",
            f"{start.cpu_seconds:.1f} | {start.cpu_seconds - least.cpu_seconds:+.1f}",
            f"{start.shared_mb:,.0f} | {start.shared_mb - least.shared_mb:+,.0f}",
            f"{start.private_mb - least.private_mb:+,.0f}",
        ]
        yield f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    sys.exit(main())
