"""`llava-inspect run`: every step by the command that it prints, stopped and gone on with, out of date."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from llava.common.errors import InputError
from llava.train.__main__ import parse_arguments
from llava_inspect import run as run_module
from llava_inspect import run_commands
from llava_inspect.__main__ import main
from llava_inspect.run_steps import Step, choose_config
from tests.support.commands import do_as_printed
from tests.support.paths import REPO
from tests.support.photos import write_photos

SHORT = ["max_steps=2", "eval_steps=2", "save_steps=1", "logging_steps=1", "batch_size=2",
         "eval_generate_samples=2"]  # fmt: skip
STEPS = ["inspect", "convert", "base answers", "train", "merge", "answers", "score"]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_photos(tmp_path_factory.mktemp("run") / "our photos #1", 20)  # needs quotes everywhere


def have_done(monkeypatch: pytest.MonkeyPatch, do: Callable[[Step], int]) -> list[str]:
    """Have steps done by `do`; returns the list in which their names come to stand."""
    names: list[str] = []

    def run_command_of(step: Step, lock: int) -> int:
        names.append(step.name)
        return do(step)

    monkeypatch.setattr(run_commands, "run_command_of", run_command_of)
    return names


def pretend(step: Step) -> int:
    """Leave behind what the step's command would, without content."""
    step.output.parent.mkdir(parents=True, exist_ok=True)
    step.output.touch()
    if step.name == "convert":
        questions = step.output.parent / "questions_test.jsonl"
        questions.write_text('{"image": "images/a.jpg"}\n', encoding="utf-8")
    return 0


@pytest.fixture
def done(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    return have_done(monkeypatch, pretend)


def command(photos: Path, output: Path, *more: str) -> list[str]:
    return ["run", str(photos), "--recipe", "insulator", "--output", str(output), *SHORT, *more]


@pytest.fixture(scope="module")
def finished(photos: Path) -> Path:
    """A finished run, as it came from the commands that were printed."""
    output = photos.parent / "finished #1"
    with pytest.MonkeyPatch.context() as patch:
        names = have_done(patch, do_as_printed)
        assert main(command(photos, output)) == 0
        assert names == STEPS
    return output


@pytest.fixture
def copied(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "copied"))


@pytest.mark.slow
def test_it_leaves_all_that_was_made_and_says_what_to_do_with_it(
    finished: Path, photos: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    done = have_done(monkeypatch, do_as_printed)
    assert main(command(photos, finished)) == 0
    said = capsys.readouterr().out
    assert done == ["score"]  # whose verdict ends a run
    assert said.count("(done)\n") == 6
    assert "Do not rely on it for" in said
    assert f"Open {finished}/scores/report.html\n" in said
    shown = [shlex.split(line) for line in said.partition("\nDone in ")[2].splitlines() if "  ll" in line]
    assert [words[1] for words in shown] == ["chat", "survey", "recipes"]
    assert all(Path(words[words.index("--model-path") + 1], "config.json").is_file() for words in shown[:2])
    assert Path(shown[0][-1]).is_file()
    assert {"photos.html", "data", "answers_base.jsonl", "answers.jsonl", "adapter", "merged", "scores"} < {
        path.name for path in finished.iterdir()
    }
    records = json.loads((finished / "steps.json").read_text(encoding="utf-8"))
    assert list(records) == STEPS and all(record["seconds"] >= 0 for record in records.values())


@pytest.mark.parametrize(
    ("change", "what", "first"),
    [
        (["max_steps=3"], "other training settings", "train"),
        (["--set-recipe", "families.count=null"], "another recipe", "convert"),
        (["--test-photos", "."], "other test photos", "convert"),
        (["photo"], "other photos", "convert"),
    ],
)
def test_what_was_done_with_something_else_is_refused(
    photos: Path, tmp_path: Path, done: list[str], change: list[str], what: str, first: str
) -> None:
    photos, output = Path(shutil.copytree(photos, tmp_path / "photos")), tmp_path / "output"
    assert main(command(photos, output)) == 0
    if change == ["photo"]:
        next(photos.rglob("*.xml")).touch()
        change = []
    changed = command(photos, output, *(str(photos / "images") if word == "." else word for word in change))
    done.clear()
    with pytest.raises(InputError) as refused:
        main(changed)
    assert str(refused.value) == (
        f"{output} was made with {what}: add --overwrite to do it again from {first} on, or keep it and "
        "name a new --output"
    )
    assert done == []
    assert main([*changed, "--overwrite"]) == 0
    assert [name for name in done if name != "inspect"] == STEPS[STEPS.index(first) :]


@pytest.mark.slow
def test_a_training_with_other_settings_starts_afresh(
    copied: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = have_done(monkeypatch, do_as_printed)
    assert main(command(photos, copied, "max_steps=1", "eval_steps=1", "--overwrite")) == 0
    assert done == ["train", "merge", "answers", "score"]
    state = json.loads((copied / "adapter" / "trainer_state.json").read_text(encoding="utf-8"))
    assert state["global_step"] == 1


def test_a_failed_step_says_that_the_same_command_goes_on(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    have_done(monkeypatch, lambda step: 2 * (step.name == "convert"))
    with pytest.raises(SystemExit) as stopped:
        main(command(photos, tmp_path / "new"))
    assert stopped.value.code == 2
    assert capsys.readouterr().err == (
        "stopped at convert; when that is put right, the same command goes on from there\n"
    )
    records = json.loads((tmp_path / "new" / "steps.json").read_text(encoding="utf-8"))
    assert records["convert"]["seconds"] is None


def test_without_photos_to_test_on_nothing_is_trained(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = have_done(monkeypatch, do_as_printed)
    with pytest.raises(InputError, match=r"no photo went to the test: .* --set-recipe splits.test=0.2"):
        main(command(photos, tmp_path / "new", "--set-recipe", "splits.test=0"))
    assert done == ["inspect", "convert"]


def test_a_dry_run_prints_the_commands_and_writes_nothing(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["run", str(photos), "--model", "llava15_13b_qlora", "epochs=2", "--dry-run"]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("  $ ")]
    commands = [shlex.split(line)[1:] for line in lines]
    assert [words[1] for words in commands] == [
        "inspect", "convert", "infer", "train", "merge", "infer", "score",
    ]  # fmt: skip
    output = "runs/our photos #1"
    inspect, convert, base, train, *_ = commands
    assert inspect[-2:] == ["--write-recipe", f"{output}/recipe.yaml"]
    assert convert[convert.index("--recipe") + 1] == f"{output}/recipe.yaml"
    assert base[base.index("--model-path") + 1] == "llava-hf/llava-1.5-13b-hf" and "--load-4bit" in base
    _, settings = parse_arguments(train[2:])
    assert train[2] == "llava15_13b_qlora" and settings.epochs == 2
    assert settings.data_path == Path(output, "data", "train.json")
    assert not list(tmp_path.iterdir())


def test_the_config_is_that_of_the_model() -> None:
    assert choose_config("llava-hf/llava-1.5-13b-hf") == "llava15_13b_qlora"
    assert choose_config("llava-hf/llava-1.5-7b-hf") == "llava15_7b_lora"  # not the one in 4 bits
    assert choose_config("playground/tiny-llava") == choose_config("tiny_cpu") == "tiny_cpu"
    with pytest.raises(InputError, match=r"/models/a: no training config ships for it; .* --model CONFIG"):
        choose_config("/models/a")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["absent"], "absent: no such folder"),
        (["."], "--output runs/{name} lies in .; name a folder apart by --output"),
        (["photos", "--output", "."], ". holds something else than a run; name another folder by --output"),
        (["photos", "output_dir=x"], "output_dir=x: a run has its own place for it below --output"),
        (["photos", "epoch=2"], "unknown key 'epoch'; did you mean 'epochs'?"),
        (["photos", "--recipe", "insulator", "--set-recipe", "seed=1"], "unknown key 'seed'"),
        (["photos", "--recipe", "absent.yaml"], "absent.yaml: no such file"),
    ],
)  # fmt: skip
def test_mistakes_are_told_before_anything_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, done: list[str], arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    with pytest.raises(InputError) as refused:
        main(["run", *arguments])
    assert message.format(name=tmp_path.name) in str(refused.value)
    assert not done and [path.name for path in tmp_path.iterdir()] == ["photos"]


@pytest.mark.slow
def test_a_killed_run_goes_on_and_so_does_an_interrupted_one(
    copied: Path, photos: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The real commands, but for the last, which goes on in this process. They hold the folder: a second run
    beside them is refused."""
    records = json.loads((copied / "steps.json").read_text(encoding="utf-8"))
    kept = {name: records[name] for name in STEPS[: STEPS.index("train")]}
    (copied / "steps.json").write_text(json.dumps(kept), encoding="utf-8")
    for name in ("adapter", "merged"):
        shutil.rmtree(copied / name)
    (copied / "answers.jsonl").unlink()
    # so many steps that none of the runs trains to the end before it is stopped
    arguments = command(photos, copied, "max_steps=15", "eval_steps=15")
    typed = [sys.executable, "-m", "llava_inspect", *arguments]

    def start() -> subprocess.Popen[str]:
        return subprocess.Popen(
            typed,
            cwd=REPO,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    first = start()
    wait_for(copied / "adapter" / "checkpoint-1", first)
    os.killpg(first.pid, signal.SIGSTOP)
    beside = subprocess.run(typed, cwd=REPO, capture_output=True, text=True, check=False)
    assert beside.returncode == 2
    assert beside.stderr == f"error: {copied}: another run, or a command that it started, is still at work\n"
    os.killpg(first.pid, signal.SIGKILL)
    first.communicate()

    reached = max(int(path.name.rpartition("-")[2]) for path in (copied / "adapter").glob("checkpoint-*"))
    second = start()
    wait_for(copied / "adapter" / f"checkpoint-{reached + 2}", second)
    os.killpg(second.pid, signal.SIGINT)  # Ctrl-C
    said, _ = second.communicate(timeout=60)
    assert second.returncode == 130, said
    assert said.count("(done)\n") == 3 and "resuming from" in said
    assert said.endswith("stopped at train; the same command goes on from there\n")

    done = have_done(monkeypatch, do_as_printed)
    assert main(arguments) == 0
    said = "".join(capfd.readouterr())
    assert done == STEPS[STEPS.index("train") :]
    assert said.count("(done)\n") == 3 and "resuming from" in said and "Do not rely on it for" in said


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while not path.exists():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)


def test_a_step_does_not_say_what_comes_next(
    photos: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    arguments = ["inspect", "--source", str(photos), "--write-recipe", str(tmp_path / "recipe.yaml")]
    step = Step("inspect", "Look at the photos", arguments, tmp_path / "recipe.yaml", "photos")
    assert main(arguments) == 0
    assert "next: " in capfd.readouterr().out
    (tmp_path / "recipe.yaml").unlink()
    with (tmp_path / "lock").open("w") as lock:
        assert run_commands.run_command_of(step, lock.fileno()) == 0
    said = capfd.readouterr().out
    assert "recipe: " in said and "next: " not in said


def test_a_recipe_of_the_users_is_edited_where_it_is(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also where the checkout holds it, as it does runs/."""
    monkeypatch.setattr(run_module, "shipped_root", lambda: tmp_path)
    mine = tmp_path / "runs" / "recipe.yaml"
    mine.parent.mkdir()
    shutil.copyfile(REPO / "configs" / "recipes" / "defect.yaml", mine)
    have_done(monkeypatch, pretend)
    arguments = ["run", str(photos), "--recipe", str(mine), "--output", str(tmp_path / "out"), *SHORT]
    assert main(arguments) == 0
    assert f"To improve it, edit {mine}, then" in capsys.readouterr().out
