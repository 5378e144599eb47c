"""What `auto` comes to for data of some size, and when a run is called too short."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from llava.common.settings import load_settings, validate_settings
from llava.train.config import TrainSettings
from llava.train.duration import Speed, guess_speed, in_words
from llava.train.schedule import decided, notes_on, schedule_of

BASE: dict[str, Any] = {
    "model_name_or_path": "m", "data_path": "d", "val_path": "v", "image_folder": "i", "output_dir": "o",
}  # fmt: skip


def settings(**values: Any) -> TrainSettings:
    return validate_settings(TrainSettings, BASE | values, "test")


@pytest.mark.parametrize(
    ("config", "items", "epochs", "steps"),
    [
        ("tiny_cpu", 20, 60, 300),  # no more than 60 times
        ("tiny_cpu", 88, 36, 792),
        ("tiny_cpu", 125, 26, 832),
        ("tiny_cpu", 158, 20, 800),
        ("tiny_cpu", 1027, 5, 1285),  # no fewer than 5 times
        ("llava15_7b_lora", 40, 10, 30),
        ("llava15_7b_lora", 500, 3, 96),
        ("llava15_7b_lora", 150_000, 1, 9375),
    ],
)
def test_epochs_follow_from_the_number_of_pictures(
    repo: Path, config: str, items: int, epochs: float, steps: int
) -> None:
    """The figures of docs/training.md."""
    schedule = schedule_of(load_settings(TrainSettings, repo / "configs" / f"{config}.yaml"), items, 1)
    assert (schedule.epochs, schedule.steps) == (epochs, steps)


def test_more_devices_make_fewer_and_larger_steps_of_the_same_epochs() -> None:
    one, four = (schedule_of(settings(epochs="auto", auto_epochs={"pictures": 320}), 160, n) for n in (1, 4))
    assert one.epochs == four.epochs == 2
    assert (one.epoch_steps, four.epoch_steps) == (10, 3) and (one.steps, four.steps) == (20, 6)


def test_a_run_validates_and_saves_eight_times_and_ends_early_after_half_without_a_better_one() -> None:
    schedule = schedule_of(settings(epochs=31, batch_size=8, gradient_accumulation_steps=1), 125, 1)
    assert (schedule.eval_steps, schedule.save_steps, schedule.validations) == (62, 62, 8)
    assert schedule.patience == 4


def test_a_long_run_saves_more_often_than_it_validates() -> None:
    schedule = schedule_of(settings(), 150_000, 1)
    assert (schedule.eval_steps, schedule.save_steps) == (1172, 500)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"epochs": 2.5}, {"epochs": 2.5, "steps": 25, "eval_steps": 4, "patience": 4}),
        ({"max_steps": 4}, {"steps": 4, "eval_steps": 1, "patience": 3}),
        ({"epochs": 2, "eval_steps": 1}, {"eval_steps": 1, "save_steps": 3, "patience": 10}),
        ({"epochs": 2, "save_steps": 7}, {"eval_steps": 3, "save_steps": 7}),
        ({"early_stopping_patience": 9}, {"patience": 9}),
        ({"early_stopping_patience": None}, {"patience": None}),
        ({"val_path": None}, {"patience": None}),
    ],
)
def test_what_is_given_stands(values: dict[str, Any], expected: dict[str, Any]) -> None:
    given = settings(**values)
    schedule = schedule_of(given, 160, 1)
    assert {name: getattr(schedule, name) for name in expected} == expected
    resolved = decided(given, schedule)
    assert "auto" not in (resolved.epochs, resolved.eval_steps, resolved.save_steps)
    assert schedule_of(resolved, 160, 1) == schedule  # a run directory's config.yaml gives the same run


def history(*losses: float) -> list[dict[str, float]]:
    """A log with a training loss and a validation at every tenth step."""
    steps = [10 * number for number in range(1, len(losses) + 1)]
    trained = [{"step": step, "loss": 9.0} for step in steps]
    validated = [{"step": step, "eval_loss": loss} for step, loss in zip(steps, losses, strict=True)]
    return trained + validated


# Both as they were on NEU-DET's 125 pictures.
SEVEN_EPOCHS = (2.2309, 1.0074, 0.6953, 0.5471, 0.504, 0.4485, 0.4395, 0.4372)
THIRTY_EIGHT_EPOCHS = (0.4213, 0.2523, 0.1825, 0.187, 0.1878, 0.1721, 0.1672, 0.167)


def test_a_loss_that_still_falls_is_reported_with_the_remedy() -> None:
    (note,) = notes_on(history(*SEVEN_EPOCHS), settings(epochs=7))
    assert note == (
        "the validation loss was still falling at the end (20% over the second half): train longer "
        "by epochs=14 (--resume auto goes on from here)"
    )
    (note,) = notes_on(history(*SEVEN_EPOCHS), settings(epochs=7, max_steps=80))
    assert "by max_steps=160 (--resume auto" in note


@pytest.mark.parametrize(
    "losses",
    [
        THIRTY_EIGHT_EPOCHS,
        (2.0, 1.0, 0.5, 0.5, 0.5, 0.49),  # flat
        (2.0, 1.0, 0.5, 0.6, 0.7, 0.8),  # rising
        (2.0, 1.5, 0.5, 0.4, 0.3, 0.31),  # the best is behind
        (0.5,),  # one validation says nothing
        (),
    ],
)
def test_a_run_that_has_learned_what_it_can_is_not(losses: tuple[float, ...]) -> None:
    assert notes_on(history(*losses), settings(epochs=7)) == []


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.2, "some 1 second"), (84, "some 84 seconds"), (200, "some 3 minutes"), (4400, "some 73 minutes"),
     (5400, "some 2 hours"), (100_000, "some 28 hours"), (400_000, "some 5 days")],
)  # fmt: skip
def test_an_estimate_is_rounded(seconds: float, words: str) -> None:
    assert in_words(seconds) == words


def test_gpus_are_guessed_by_their_memory() -> None:
    speeds = [guess_speed(round(memory * 1e9)).flops for memory in (12, 24, 32, 80)]
    assert speeds == sorted(speeds)
    assert guess_speed(24 * 10**9) == Speed(1e14, "if a GPU computes 100 TFLOP/s")
