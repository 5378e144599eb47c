"""What the lines of a running training say."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import pytest

from llava.train.display import Display

LOGS = {
    "loss": 0.5, "grad_norm": 1.25, "learning_rate": 2e-4, "learning_rate_language": 2e-4,
    "pictures_per_second": 12.34, "tokens_per_second": 4000.0, "supervised_tokens_per_second": 300.0,
    "step_seconds": 0.65, "peak_memory_gb": 1.5,
}  # fmt: skip


@pytest.fixture
def line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """What is said after `step` of 100 steps, ten of which were made in the last 30 seconds."""

    def line(step: int = 20, *, verbose: bool = False, **logs: float) -> str:
        clock = iter([100.0, 130.0])
        monkeypatch.setattr("llava.train.display.time.monotonic", lambda: next(clock))
        display = Display(shown=True, verbose=verbose)
        display.on_train_begin(None, SimpleNamespace(global_step=step - 10, max_steps=100), None)
        display.on_log(None, SimpleNamespace(global_step=step, max_steps=100), None, LOGS | logs)
        return capsys.readouterr().err.strip()

    return line


def test_a_line_says_how_far_how_well_how_fast_and_how_long(line: Callable[..., str]) -> None:
    assert line() == "step 20/100  loss 0.5000  12.3 images/s  some 4 minutes left"
    assert line(100).endswith("12.3 images/s")


def test_a_text_without_images_is_measured_in_tokens(line: Callable[..., str]) -> None:
    assert "4000 tokens/s" in line(pictures_per_second=0.0)


def test_verbose_adds_what_somebody_wants_who_tunes_the_training(line: Callable[..., str]) -> None:
    said = line(verbose=True)
    for part in ("learning rate 0.0002", "gradient norm 1.2", "300 supervised tokens/s", "0.65 s/step",
                 "peak memory 1.5 GB"):  # fmt: skip
        assert part in said
