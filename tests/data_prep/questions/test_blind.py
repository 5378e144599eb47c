"""The guess without looking: it finds what questions give away, and nothing where there is nothing."""

import json
import random
import time
from pathlib import Path

import pytest

from data_prep.__main__ import main as data_prep
from data_prep.annotations import Shape
from data_prep.images.units import Unit
from data_prep.questions.blind import AskedQuestion, blind_test, guess_blindly, is_closed
from data_prep.questions.guesses import guess_test, notes_of_guesses
from data_prep.questions.records import to_truth
from data_prep.questions.select import make_questions
from data_prep.recipe.schema import Recipe
from llava.common.boxes import format_box
from llava.common.settings import load_settings
from tests.support.units import CRACK, KINDS, MOSS, make_unit, only


def region(rng: random.Random, answer: str, tells: bool, group: int) -> AskedQuestion:
    """A question about a box; where it `tells`, boxes of nothing lie at the left edge more often than not."""
    x = 0.0 if tells and answer == "none" and rng.random() < 0.4 else rng.uniform(0.01, 0.7)
    y = rng.uniform(0.01, 0.7)
    box = format_box((x, y, x + rng.uniform(0.05, 0.3), y + rng.uniform(0.05, 0.3)))
    return AskedQuestion(f"{rng.choice(('What is', 'Name what is'))} in {box}?", answer, f"g{group}")


def regions(seed: int, count: int, tells: bool) -> list[AskedQuestion]:
    """Three questions a picture; those about one picture mostly have one answer."""
    rng = random.Random(seed)
    usual = [rng.choice(("crack", "moss", "none", "none")) for _ in range(count)]
    return [
        region(rng, usual[n // 3] if rng.random() < 0.6 else rng.choice(("crack", "none")), tells, n // 3)
        for n in range(count)
    ]


def test_boxes_that_tell_the_answer_are_found() -> None:
    test = blind_test(regions(0, 900, tells=True))
    assert test is not None and test.constant == pytest.approx(1 / 3) and 0.4 < test.guess < 0.7
    assert str(test) == f"{test.guess:.0%} (a constant answer: 33%)"


def test_false_alarms_are_rare() -> None:
    """Answers of one picture hang together, and some are common: neither is a hint."""
    alarms = [blind_test(regions(seed, 90 + 9 * seed, tells=False)) for seed in range(100)]
    assert sum(alarm is not None for alarm in alarms) <= 1


def test_the_time_grows_with_the_questions_and_no_faster() -> None:
    questions = regions(0, 10_000, tells=False)
    started = time.process_time()
    blind_test(questions)
    assert time.process_time() - started < 30  # some 1 on a free core


def test_words_and_options_that_tell_the_answer_are_found() -> None:
    rng = random.Random(0)
    names = ["crack", "moss", "rust"]
    words = [AskedQuestion(f"Is there {rng.choice(names)}?", "no", str(n)) for n in range(300)]
    words = [q if "rust" not in q.text else AskedQuestion(q.text, "yes", q.group) for q in words]
    assert str(blind_test(words)) == "100% (a constant answer: 50%)"
    # "none" is right wherever it is shown, at whatever letter.
    choices = []
    for number in range(300):
        options = rng.sample(["none", *names], 2)
        right = "none" if "none" in options else options[0]
        lines = "\n".join(f"{letter}. {text}" for letter, text in zip("AB", options, strict=True))
        letter = "AB"[options.index(right)]
        choices.append(AskedQuestion(f"Which? {lines}\nAnswer with the letter.", letter, str(number)))
    test = blind_test(choices)
    assert test is not None and test.guess > 0.7 and test.constant == 0.5
    known = [(question.text, question.answer) for question in choices]
    assert guess_blindly(known, ["Any?\nA. moss\nB. none", "Any?\nA. none\nB. rust"]) == ["B", "A"]


def test_too_little_is_not_judged() -> None:
    questions = [AskedQuestion(f"Is it {n % 2}?", "yes" if n % 2 else "no", str(n)) for n in range(40)]
    assert blind_test(questions) is not None
    assert blind_test([AskedQuestion(q.text, q.answer, str(int(q.group) % 19)) for q in questions]) is None
    assert blind_test([AskedQuestion(q.text, "yes", q.group) for q in questions]) is None
    assert blind_test([]) is None
    assert is_closed(["top left", "[0.1, 0.2, 0.3, 0.4]"]) and not is_closed(["A crack at the top left."])


def test_counts_are_guessed_by_how_common_they_are() -> None:
    known = [("How many?", "1")] * 9 + [("How many?", "2")]
    assert guess_blindly(known, ["How many?"], common=True) == ["1"]


def test_what_a_recipe_asks_cannot_be_guessed(repo: Path) -> None:
    """Of boxes that are drawn alike for all kinds; and the truth holds guesses for what is closed."""
    full = load_settings(Recipe, repo / "configs" / "recipes" / "insulator_full.yaml")
    rng = random.Random(0)

    def draw(number: int) -> Unit:
        names = rng.choices(KINDS, [8, 4, 4, 2, 1], k=rng.choice((0, 0, 1, 1, 2)))
        shapes = []
        for name in names:
            x, y = rng.uniform(0, 150), rng.uniform(0, 75)
            shapes.append(Shape(name, (x, y, x + rng.uniform(5, 50), y + rng.uniform(5, 25))))
        return make_unit(number, *shapes)

    units = [draw(number) for number in range(400)]
    train, test = (
        make_questions(part, full, split, 0)[0]
        for part, split in ((units[:300], "train"), (units[300:], "test"))
    )
    groups = {unit.image: unit.source for unit in units}
    assert notes_of_guesses(train, groups) == []
    guesses = guess_test(train, test)
    closed = [qa for qa in test if qa.type in ("yesno", "class", "count")]
    assert guesses.keys() == {qa.id for qa in closed}
    choice = [qa for qa in closed if qa.task == "choice"]
    assert sum(guesses[qa.id] == qa.answer for qa in choice) / len(choice) < 0.35
    truth = to_truth(choice[0], full, "g", guesses[choice[0].id])
    assert truth.meta["blind"] in truth.classes


def test_what_can_be_guessed_is_noted() -> None:
    recipe = only("where", {"of": "each", "questions": ["Where is the {kind}?"]})
    units = [make_unit(number, *((CRACK, MOSS) if number % 3 else (MOSS,))) for number in range(60)]
    (note,) = notes_of_guesses(
        make_questions(units, recipe, "train", 0)[0], {u.image: u.image for u in units}
    )
    assert "without looking" in note and "where 100% (a constant answer: 50%)" in note


def test_check_leaves_shapes_of_kinds_and_finds_boxes_of_nothing(tmp_path: Path) -> None:
    """Scratches are longer than pits; only that boxes of nothing lie elsewhere is a fault."""

    def found(nothing_is_elsewhere: bool) -> bool:
        rng, records = random.Random(0), []
        for number in range(300):
            kind = rng.choice(("scratch", "pit", "none"))
            long = kind == "scratch" or (kind == "none" and rng.random() < 0.5)
            x = 0.7 if kind == "none" and nothing_is_elsewhere else rng.uniform(0.1, 0.6)
            y, width, height = rng.uniform(0.1, 0.5), 0.2, 0.4 if long else 0.1
            box = format_box((x, y, x + width, y + height))
            turns = [
                {"from": "human", "value": f"<image>\nWhat is in {box}?"},
                {"from": "gpt", "value": kind},
            ]
            meta = {"task": "region", "label": kind}
            records.append(
                {"id": str(number), "image": f"{number}.png", "conversations": turns, "meta": meta}
            )
        file, images = tmp_path / "train.json", tmp_path / "images"
        file.write_text(json.dumps(records))
        images.mkdir(exist_ok=True)
        command = ["check", str(file), "--image-folder", str(images), "--json", str(tmp_path / "found.json")]
        data_prep(command)
        kinds = {part["kind"] for part in json.loads((tmp_path / "found.json").read_text())["findings"]}
        return "blind" in kinds

    assert (found(False), found(True)) == (False, True)


def test_check_says_what_can_be_guessed(tmp_path: Path) -> None:
    """LLaVA records without a word on groups or tasks: pictures are the groups."""
    records = [
        {
            "id": str(number),
            "image": f"{number}.png",
            "conversations": [
                {"from": "human", "value": f"<image>\nIs it {'fine' if number % 2 else 'bad'}?"},
                {"from": "gpt", "value": "Yes." if number % 2 else "No."},
            ],
        }
        for number in range(60)
    ]
    file, images = tmp_path / "train.json", tmp_path / "images"
    file.write_text(json.dumps(records))
    images.mkdir()
    command = ["check", str(file), "--image-folder", str(images), "--json", str(tmp_path / "found.json")]
    assert data_prep(command) == 1
    found = {part["kind"]: part for part in json.loads((tmp_path / "found.json").read_text())["findings"]}
    (example,) = found["blind"]["examples"]
    assert example["detail"] == (
        "all yes/no: a guess is right, on average over the answers, 100% (a constant answer: 50%)"
    )
