"""The run on a GPU: parts end at their limits, fail and are kept alone; the table says what is there."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import on_gpu, on_gpu_equality, on_gpu_table, warm_start
from benchmarks.on_gpu_equality import Check
from llava.common.errors import InputError
from llava.train.data import packing
from tests.support.commands import run_here
from tests.support.paths import REPO

FAKE = """
import json, sys, time
what, output = sys.argv[1], sys.argv[-1]
print("begins", what, flush=True)
if what == "sleep":
    time.sleep(60)
if what == "fail":
    sys.exit("no such kernel")
open(output, "w").write(json.dumps({"configs": []}))
"""


def part(name: str, *modes: str, limit: int = 20) -> on_gpu.Part:
    commands = tuple(on_gpu.Command("fake", mode) for mode in modes)
    return on_gpu.Part(name, 1, limit, commands, commands)


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> argparse.Namespace:
    """Put a module of ours in place of the benchmarks; return the options of a run to `out`."""
    (tmp_path / "fake.py").write_text(FAKE)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    line = on_gpu.Command.line

    def fake_line(command: on_gpu.Command, scratch: Path, output: Path) -> list[str]:
        python, m, _, *rest = line(command, scratch, output)
        return [python, m, "fake", *rest]

    monkeypatch.setattr(on_gpu.Command, "line", fake_line)
    monkeypatch.setattr(on_gpu, "GRACE", 0.2)
    monkeypatch.setattr(on_gpu, "PATIENCE", 1)
    out = tmp_path / "out"
    out.mkdir()
    return argparse.Namespace(out=out, parts=["memory", "train", "infer"], rehearse=True)


def run(options: argparse.Namespace, *parts: on_gpu.Part, seconds: float = 60) -> dict[str, Any]:
    scratch = options.out.parent
    on_gpu.run_group(parts, options, scratch, time.time() + seconds)
    return {name: content["status"] for name, content in on_gpu_table.read_parts(options.out).items()}


def test_a_part_that_fails_or_hangs_does_not_keep_the_next_from_its_turn(fake: argparse.Namespace) -> None:
    states = run(fake, part("memory", "fail", "good"), part("train", "sleep", limit=1))
    assert states == {"memory": "failed", "train": "cut"}
    failed = json.loads((fake.out / "memory.json").read_text())
    assert "no such kernel" in failed["log"] and [c["code"] for c in failed["commands"]] == [1, 0]
    assert failed["commands"][1]["found"] == {"configs": []}
    states = run(fake, part("infer", "good"), part("extras", "good"))
    assert states == {"memory": "failed", "train": "cut", "infer": "done"}  # extras was not asked for


def test_parts_that_went_well_are_kept_and_no_part_starts_too_late(
    fake: argparse.Namespace, capsys: pytest.CaptureFixture[str]
) -> None:
    run(fake, part("infer", "good"))
    before = (fake.out / "infer.json").read_text()
    assert run(fake, part("infer", "fail"), part("train", "good"), seconds=0) == {"infer": "done"}
    assert (fake.out / "infer.json").read_text() == before
    assert capsys.readouterr().out.splitlines()[1:] == ["infer: is there", "train: no time is left for it"]


def test_what_a_part_says_is_on_the_disk_while_it_runs(fake: argparse.Namespace) -> None:
    running = on_gpu.Running(
        part("memory", "sleep"), part("memory", "sleep").gpu, fake.out, fake.out.parent, time.time() + 30
    )
    for _ in range(100):
        running.poll()
        content = json.loads(running.file.read_text())
        if content["log"]:
            break
        time.sleep(0.05)
    running.stop()
    assert running._process is not None and running._process.poll() is not None
    assert (content["status"], content["log"]) == ("running", ["begins sleep"])
    assert "begins sleep" in on_gpu_table.write(fake.out)


def test_a_process_that_captures_is_ended_at_the_deadline(
    fake: argparse.Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(warm_start, "_WARM", False)
    command = on_gpu.Command("fake", "sleep").line(fake.out, fake.out / "found.json")
    monkeypatch.setenv(warm_start.DEADLINE, str(time.time() + 1))
    done = warm_start.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (warm_start.CUT, "begins sleep\n")
    assert warm_start.run(["echo", "other"], capture_output=True, text=True).stdout == "other\n"


def trained(questions: int, contender: str, seconds: float, flops: float = 400e12) -> dict[str, Any]:
    return {
        "questions": questions, "contender": contender, "records": 64, "seconds": seconds,
        "flops": flops * seconds, "peak_mib": 2048, "first_loss": 7.5, "last_loss": 7.25,
    }  # fmt: skip


def written(out: Path, name: str, found: Any, status: str = "done", command: str = "--device cuda") -> None:
    content = {
        "part": name, "status": status, "planned": 1, "limit": 2, "seconds": 1.5, "log": ["the last line"],
        "commands": [{"command": command, "code": 0, "cut": False, "seconds": 1.5, "found": found}],
    }  # fmt: skip
    (out / f"{name}.json").write_text(json.dumps(content))


def test_the_table_holds_figures_against_bars_and_names_what_is_missing(tmp_path: Path) -> None:
    peak = {"peak_flops": 800e12, "device": "NVIDIA H100", "versions": {"torch": "2.11"}}
    runs = [
        trained(8, "ours", 1.0), trained(8, "ours flex", 0.5), trained(8, "TRL", 4.0),
        {"questions": 8, "contender": "LLaMA-Factory", "absent": "no module"},
    ]  # fmt: skip
    runs.append(trained(1, "ours unpacked", 4.0, flops=494.7e12))
    written(tmp_path, "train", {"peak": peak, "runs": runs}, status="failed")
    checks = [
        {"name": "packed", "tolerance": 0.1, "difference": 0.02, "passed": True},
        {"name": "flex", "tolerance": 0.1, "failed": "RuntimeError: out of shared memory", "passed": False},
    ]
    written(tmp_path, "equality", {"checks": checks})
    done = run_here(on_gpu_table.main, tmp_path)
    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert "NVIDIA H100, 800.0 TFLOP/s measured; torch 2.11" in lines
    assert "| extras | MISSING |  |  |  |" in lines
    assert "| 8 | ours flex | 128.00 | 8.00 | 40.4% | 50% | 2.0 | 7.5000 | 7.2500 |" in lines
    assert "| 8 | LLaMA-Factory | no module |  |  |  |  |  |  |" in lines
    assert "| flex |  | 0.1 | FAILED: RuntimeError: out of shared memory |" in lines
    assert "the last line" in lines
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["parts"]["infer"] == "missing"
    assert [(bar["found"], bar["met"]) for bar in summary["bars"]] == [
        ("flex", False), (pytest.approx(0.5), True), (16.0, False), (8.0, True),
    ]  # fmt: skip


def test_a_rehearsal_meets_no_bar(tmp_path: Path) -> None:
    peak = {"peak_flops": 1e12, "device": "CPU", "versions": {}}
    runs = [trained(8, "ours", 1.0), trained(8, "TRL", 9.0)]
    written(tmp_path, "train", {"peak": peak, "runs": runs}, command="")
    assert {bar["met"] for bar in on_gpu_table.bars(on_gpu_table.read_parts(tmp_path))} == {None}
    with pytest.raises(InputError, match="no part is there"):
        on_gpu_table.write(tmp_path / "nothing")


def test_all_parts_together_are_planned_to_take_less_than_8_minutes() -> None:
    side_by_side = [max(part.planned for part in group) for group in on_gpu.GROUPS]
    assert on_gpu.START + sum(side_by_side) <= 480
    assert tuple(on_gpu.PARTS) == on_gpu_table.PART_NAMES
    assert all(part.planned < part.limit for part in on_gpu.PARTS.values())


def test_equality_is_found_and_a_branch_that_sees_its_sibling_too(monkeypatch: pytest.MonkeyPatch) -> None:
    packed = Check("float32, packed", 1e-3)
    assert on_gpu_equality.compare(packed, "cpu")["passed"]

    def all_before(group: torch.Tensor, branch: torch.Tensor) -> torch.Tensor:
        return torch.ones(len(group), 1, group.shape[1], group.shape[1], dtype=torch.bool).tril()

    monkeypatch.setattr(packing, "branch_mask", all_before)
    found = on_gpu_equality.compare(packed, "cpu")
    assert not found["passed"] and found["difference"] > 0.1


@pytest.mark.slow
def test_the_command_rehearses_on_a_cpu(tmp_path: Path) -> None:
    """Processes are forked from one that has imported all, and a table is made."""
    command = ["benchmarks/on_gpu.sh", str(tmp_path), "--rehearse", "--parts", "extras"]
    env = os.environ | {"PYTHON": sys.executable}
    done = subprocess.run(command, cwd=REPO, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "extras: done" in done.stdout
    assert "| equality | MISSING |" in done.stdout
    found = [c["found"] for c in json.loads((tmp_path / "extras.json").read_text())["commands"]]
    assert "vision tower" in found[0]["profile"][0]["parts"]
    assert "language model: attention" in found[1]["parts"]
