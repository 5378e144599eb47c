"""What is held while a test is scored, and resamples from sums against resamples of the questions."""

import json
import random
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eval.score import score
from eval.scoring import texts
from eval.scoring.answers import AnswerFile, read_answers, read_truth
from eval.scoring.families import family_of
from eval.scoring.intervals import bootstrap, number_groups
from eval.scoring.options import ScoringOptions
from eval.scoring.probabilities import ChoiceProbabilities, resampled_metrics
from llava.common.files import write_jsonl
from llava.common.records import Answer, Truth
from tests.support.made_scores import truths_of
from tests.support.score_rows import answer

RESAMPLES = 20
BOXES = ["[0.1, 0.2, 0.6, 0.7]", "[0.1, 0.2, 0.5, 0.5]", "[0.5, 0.5, 0.9, 0.9]", "nowhere"]
REPORTS = ['{"defect": "burn", "size": 3}', '[{"defect": "nest"}, {"defect": "burn", "size": 3}]', "a burn"]
TEXTS = ["a burn on it", "A burn", "nothing on it", ""]
TASKS: dict[str, tuple[list[str], dict[str, Any]]] = {
    "yesno": (["yes", "no", "perhaps"], {}),
    "class": (["burn", "nest", "rust", "dust"], {"classes": ["burn", "nest", "rust"]}),
    "count": (["0", "1", "2", "many"], {}),
    "box": (BOXES, {}),
    "json": (REPORTS, {}),
    "text": (TEXTS, {}),
}


def asked(kind: Any, count: int, draw: random.Random) -> tuple[list[Truth], list[str | None]]:
    """Truths, of all that can be true, and answers, a third right, in 12 groups."""
    said, more = TASKS[kind]
    true = [draw.choice(said[:-1]) for _ in range(count)]
    truths = truths_of("task", kind, true, **more)
    for truth in truths:
        truth.group = f"g{draw.randrange(12)}"
    answers = [draw.choice([truth.answer, *said, None]) for truth in truths]
    return truths, answers


def naive_draws(groups: list[str], seed: int) -> list[list[int]]:
    """The questions of every resample, those of a group that is drawn twice two times over."""
    names = sorted(set(groups))
    counts = np.random.default_rng([seed]).multinomial(len(names), [1 / len(names)] * len(names), RESAMPLES)
    return [
        [i for i, group in enumerate(groups) for _ in range(int(times[names.index(group)]))]
        for times in counts
    ]


@pytest.mark.parametrize("kind", TASKS)
@pytest.mark.parametrize("seed", range(3))
def test_resamples_of_sums_are_resamples_of_questions(
    kind: str, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every metric of every resample, as if the drawn questions had been a test of their own."""
    monkeypatch.setattr(
        texts, "missing_libraries", lambda: ["all"]
    )  # CIDEr's weights are those of the whole test
    truths, answers = asked(kind, 60, random.Random(seed))
    family = family_of("task", truths)
    groups = [truth.group for truth in truths]
    numbers, names = number_groups(groups)
    sums = family.evaluate(answers).rows.group_sums(numbers, len(names))
    (found,) = bootstrap([lambda drawn: family.metrics(sums.resample(drawn))], len(names), RESAMPLES, [seed])
    for resample, picked in enumerate(naive_draws(groups, seed)):
        alone = family_of("task", [truths[i] for i in picked])
        expected = alone.metrics(alone.evaluate([answers[i] for i in picked]).rows.total())
        for name, value in expected.items():
            assert found[name][resample] == pytest.approx(float(value), abs=1e-12, nan_ok=True), name


@pytest.mark.parametrize("ties", [False, True])
def test_ranking_of_weighted_groups_is_that_of_pairs(ties: bool) -> None:
    """AUROC is the share of the pairs of a yes and a no that are ranked rightly, equals half."""
    draw = np.random.default_rng(0)
    groups = draw.integers(0, 12, 60)
    probability = draw.random(60).round(1 if ties else 9)
    yes = draw.random(60) < 0.4
    known = ChoiceProbabilities(np.stack([probability, 1 - probability], 1), 1 - yes, groups, yes_no=True)
    (found,) = bootstrap([resampled_metrics(known, 12)], 12, RESAMPLES, [5])
    for resample, picked in enumerate(naive_draws([f"{group:02d}" for group in groups], 5)):
        of_yes = [probability[i] for i in picked if yes[i]]
        of_no = [probability[i] for i in picked if not yes[i]]
        pairs = [(y > n) + (y == n) / 2 for y in of_yes for n in of_no]
        assert found["auroc"][resample] == pytest.approx(np.mean(pairs), abs=1e-12)


def write_test(folder: Path, count: int) -> None:
    """A picture with each type of question, by turns, each answered at some length."""
    draw = random.Random(0)
    rows, said = [], []
    for kind in TASKS:
        truths, answers = asked(kind, count // len(TASKS), draw)
        for number, (truth, text) in enumerate(zip(truths, answers, strict=True)):
            row = truth.model_dump() | {"question_id": f"{kind}{number:012d}", "task": kind}
            rows.append(row | {"meta": {"source": f"line{number % 3}/photo{number}", "area": 0.1}})
            choices = {"yes": 0.25, "no": 0.75} if kind == "yesno" else None
            if text is not None:
                said.append(answer(row["question_id"], text, source=f"photo{number}.jpg", choices=choices))
    write_jsonl(folder / "truth.jsonl", rows)
    write_jsonl(folder / "answers.jsonl", said)


def test_files_score_as_what_is_held(tmp_path: Path) -> None:
    write_test(tmp_path, 300)
    source, truths = read_truth(tmp_path / "truth.jsonl")
    file = read_answers(tmp_path / "answers.jsonl", "tuned", truths, tmp_path)
    lines = (tmp_path / "answers.jsonl").read_text().splitlines()
    held = AnswerFile(
        "tuned", file.source, {row["question_id"]: Answer(**row) for row in map(json.loads, lines)}
    )
    options = ScoringOptions(resamples=100)
    assert (
        score(source, truths, file, None, options)[0] == score(source, list(truths), held, None, options)[0]
    )


def test_little_is_held_of_an_answer(tmp_path: Path) -> None:
    """Of a question with its truth and answer, after all is scored; as objects they would be 5,000 bytes."""
    count = 3000
    write_test(tmp_path, count)
    options = ScoringOptions(resamples=100)
    tracemalloc.start()
    try:
        source, truths = read_truth(tmp_path / "truth.jsonl")
        file = read_answers(tmp_path / "answers.jsonl", "tuned", truths, tmp_path)
        read, _ = tracemalloc.get_traced_memory()
        held = score(source, truths, file, None, options)
        scored, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(held[1]) == len(TASKS)
    assert read / count < 400
    assert scored / count < 1500
