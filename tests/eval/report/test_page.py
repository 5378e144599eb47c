"""The report of scores: its numbers against scores.json, hostile text, and its filter in a browser."""

import html
import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from eval.report import gallery
from eval.report.cases import CardOutline, Cases, Outline
from eval.report.gallery import choose_cards
from eval.report.page import render_page
from eval.report.phrases import percent
from eval.score import main
from eval.scoring.schema import Case, Estimate, Probe, Scores, Slice
from llava.common.records import Question, TaskType, Truth
from tests.support.browser import installed_chromium
from tests.support.html_page import Page, check_alone
from tests.support.made_scores import answers_of, scores_and_cases, truths_of

MORE = (
    *("article", "form", "label", "select", "option", "input", "button", "output", "script"),
    *("path", "circle", "text", "title", "code"),
)
KINDS = ["crack", "rust", "none"]


def asked(truths: list[Truth], text: str = "Is it?", name: str = "{number}.png") -> list[Question]:
    return [
        Question(
            question_id=truth.question_id, image=name.format(number=number % 12), text=f"<image>\n{text}"
        )
        for number, truth in enumerate(truths)
    ]


def images(folder: Path, count: int = 12) -> Path:
    for number in range(count):
        Image.new("RGB", (40, 30), (20 * number, 90, 0)).save(folder / f"{number}.png")
    return folder


def probabilities_of(texts: list[str], classes: list[str]) -> list[dict[str, float]]:
    """Probabilities for the answers given, surer of some than of others."""
    made = []
    for number, text in enumerate(texts):
        sure = 0.6 + 0.03 * (number % 12)
        rest = (1 - sure) / (len(classes) - 1)
        made.append({name: sure if name == text else rest for name in classes})
    return made


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Scores, Cases, Path]:
    """Two closed tasks with probabilities, boxes and texts, tuned and base; half right."""
    labels = ["crack"] * 12 + ["rust"] * 12 + ["none"] * 24
    presence = truths_of(
        "presence", "yesno", ["yes"] * 24 + ["no"] * 24, label=labels, meta={"about": "defect"}
    )
    kind = truths_of("kind", "class", labels, classes=KINDS, label=labels)
    box = truths_of("box", "box", ["[0.1, 0.2, 0.6, 0.7]"] * 24, label="crack")
    text = truths_of("describe", "text", [f"a {label} on it" for label in labels], label=labels)
    truths = [*presence, *kind, *box, *text]
    said = ["yes"] * 20 + ["no"] * 24 + ["yes"] * 4 + labels[:40] + ["dust"] * 8
    said += ["[0.1, 0.2, 0.6, 0.6]"] * 20 + ["nowhere"] * 4 + ["a crack on it"] * 48
    base = ["yes"] * 48 + ["none"] * 48 + ["[0.5, 0.5, 0.9, 0.9]"] * 24 + ["something"] * 48
    folder = images(tmp_path_factory.mktemp("pictures"))
    sure = [*probabilities_of(said[:48], ["yes", "no"]), *probabilities_of(said[48:96], KINDS), *[{}] * 72]
    other = [*probabilities_of(base[:48], ["yes", "no"]), *probabilities_of(base[48:96], KINDS), *[{}] * 72]
    scores, cases = scores_and_cases(
        truths,
        answers_of("tuned", truths, said, sure, "my-model"),
        answers_of("base", truths, base, other, "its-base"),
        asked(truths),
    )
    return scores, cases, folder


@pytest.fixture(scope="module")
def written(made: tuple[Scores, Cases, Path]) -> str:
    return render_page(*made)


def test_the_page_needs_nothing_beside_itself(written: str) -> None:
    found = check_alone(written, *MORE)
    assert all(image["alt"] for image in found.named("img"))
    assert len(written) < 500_000
    assert found.text.startswith("May you rely on “my-model”?")


def test_numbers_on_the_page_are_those_of_scores_json(made: tuple[Scores, Cases, Path], written: str) -> None:
    scores = json.loads(json.dumps(made[0].model_dump(mode="json", exclude_none=True)))
    text = Page(written).text
    assert f"Tested on {scores['truth']['lines']} questions about 12 pictures (48 independent groups)" in text
    for task in scores["tasks"]:
        headline = task["headline"]
        tuned, base = (task[name]["metrics"][headline] for name in ("tuned", "base"))
        spread = f"{percent(tuned['value'])} {percent(tuned['low'])} to {percent(tuned['high'])}"
        assert f"{task['task']} {spread} {percent(base['value'])} " in text
        assert f" {task['n']} {percent(task['tuned']['metrics']['parsed']['value'])} " in text
        for counts, name in zip(task["tuned"].get("confusion", []), task.get("classes", []), strict=False):
            assert f"{name} {' '.join(str(count) if count else '·' for count in counts)}" in text
    presence = scores["tasks"][0]["tuned"]
    assert f"AUROC of tuned: {presence['choices']['metrics']['auroc']['value']:.2f}" in text
    assert f"(ECE {presence['choices']['metrics']['ece']['value']:.2f})" in text
    for part in ("truth", "answers", "baseline_answers"):
        assert scores[part]["sha256"] in text and scores[part]["name"] in text


def test_slices_show_every_kind(made: tuple[Scores, Cases, Path], written: str) -> None:
    text = Page(written).text
    for part in made[0].tasks[0].slices:
        if part.by == "truth":
            assert f"{part.label} {part.answer} {percent(part.tuned.value)}, " in text


def test_images_are_embedded_once_and_boxes_are_drawn(written: str) -> None:
    found = Page(written)
    sources = [image["src"] for image in found.named("img")]
    assert len(sources) == len(set(sources)) == 12
    looks = [item.get("class") for item in found.named("rect")]
    assert looks.count("truth") == looks.count("tuned") + 4 == looks.count("base") == 24
    first = next(item for item in found.named("rect") if item.get("class") == "truth")
    assert [first[key] for key in ("x", "y", "width", "height")] == ["0.1000", "0.2000", "0.5000", "0.5000"]
    assert "true box" in found.text and "box of base" in found.text


def test_all_questions_are_there_without_a_script(made: tuple[Scores, Cases, Path], written: str) -> None:
    found = Page(written)
    rows = [item for item in found.named("div") if item.get("class") == "ask"]
    assert len(rows) == sum(len(card.rows) for card in made[1].cards)
    (form,) = found.named("form")
    assert "hidden" in form
    assert "<image>" not in html.unescape(written.split("<main>")[1])
    tasks = [item["data-task"] for item in rows]
    assert {task: tasks.count(task) for task in tasks} == {
        "presence": 48,
        "kind": 48,
        "box": 24,
        "describe": 48,
    }
    states = [item["data-tuned"] for item in rows if item["data-task"] == "kind"]
    assert (states.count("right"), states.count("unparsed")) == (40, 8)


HOSTILE = [
    "<script>alert(1)</script>",
    "\"'><svg onload=alert(1)>",
    "</style></td>&lt;b&gt;",
    "a\u2028b\u202egnp.\x00",
]


@pytest.mark.parametrize("name", HOSTILE)
def test_foreign_text_stays_text(name: str, tmp_path: Path) -> None:
    labels = [name, "other", "none"] * 10
    truths = [
        *truths_of(name, "class", labels, classes=[name, "other", "none"], label=name),
        *truths_of(f"{name}2", "yesno", ["yes", "no"] * 12, label=labels[:24], meta={"about": name}),
        *truths_of(f"{name}3", "text", [name] * 12),
    ]
    texts = [name] * 20 + ["other"] * 10 + ["yes"] * 24 + [f"{name} and more"] * 12
    tuned = answers_of("tuned", truths, texts, [{name: 0.5, "other": 0.3, "none": 0.2}] * 66, model=name)
    tuned.answers[str(truths[0].question_id)].metadata["error"] = name
    safe = name.replace("\x00", "")
    scores, cases = scores_and_cases(
        truths, tuned, answers_of("base", truths, texts), asked(truths, name, f"{safe}{{number}}.png")
    )
    scores.warnings.append(name)
    text = render_page(scores, cases, tmp_path)
    text.encode("utf-8")
    assert not [char for char in text if char in "\x00\u2028\u202e"]
    found = check_alone(text, *MORE)
    assert found.text.count(re.split(r"[\u2028\x00]", name)[0]) > 60


def test_an_image_that_cannot_be_shown_is_said_to_be_so(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    Image.new("RGB", (9, 9)).save(tmp_path / "secret.png")
    (folder / "torn.png").write_bytes((tmp_path / "secret.png").read_bytes()[:40])
    names = ["../secret.png", str(tmp_path / "secret.png"), "torn.png", "absent.png"]
    truths = truths_of("presence", "yesno", ["yes"] * 4)
    questions = [
        Question(question_id=t.question_id, image=n, text="?") for t, n in zip(truths, names, strict=True)
    ]
    scores, cases = scores_and_cases(truths, answers_of("tuned", truths, ["yes"] * 4), None, questions)
    found = check_alone(render_page(scores, cases, folder), *MORE)
    assert not found.named("img")
    assert all(f"This picture cannot be shown: {name}." in found.text for name in names)


def test_questions_on_several_images_and_on_none(tmp_path: Path) -> None:
    truths = truths_of("same", "yesno", ["yes", "no", "yes"])
    names: list[str | list[str] | None] = ["0.png", ["0.png", "1.png"], None]
    questions = [
        Question(question_id=t.question_id, image=i, text="?") for t, i in zip(truths, names, strict=True)
    ]
    scores, cases = scores_and_cases(
        truths, answers_of("tuned", truths, ["yes", "no", "no"]), None, questions
    )
    found = check_alone(render_page(scores, cases, images(tmp_path, 2)), *MORE)
    assert len(found.named("img")) == 2
    assert "0.png is shown there" in found.text or found.text.count("0.png") >= 2
    assert "asked without a picture" in found.text
    places = {item["id"] for name, item in found.elements if item.get("id")}
    assert {(item["href"] or "#")[1:] for item in found.named("a")} <= places


def test_many_questions_on_one_image_are_cut_and_said_to_be(tmp_path: Path) -> None:
    truths = truths_of("presence", "yesno", ["yes"] * 60 + ["no"] * 60)
    questions = [Question(question_id=truth.question_id, image="0.png", text="?") for truth in truths]
    texts = ["no"] * 10 + ["yes"] * 50 + ["no"] * 60
    scores, cases = scores_and_cases(truths, answers_of("tuned", truths, texts), None, questions)
    found = Page(render_page(scores, cases, images(tmp_path, 1)))
    rows = [item["data-tuned"] for item in found.named("div") if item.get("class") == "ask"]
    assert rows.count("wrong") == 10 and rows.count("right") == 30  # what is wrong comes first
    assert "110 of 120 answers right" in found.text
    assert "and 80 more questions" in found.text


def outline(number: int, right: bool, label: str = "", lost: bool = False) -> Outline:
    image = f"{number}.png"
    return Outline(str(number), "t", "g", label or None, (image,), "?", float(right), right, lost)


def cards_of(outlines: list[Outline]) -> list[CardOutline]:
    def load(row: int) -> Case:
        raise AssertionError("which cards are shown is told without reading one")

    return Cases(outlines, load).cards


@given(st.lists(st.tuples(st.booleans(), st.sampled_from("abc")), max_size=60), st.integers(1, 40))
def test_what_is_shown_is_the_worst_of_each_kind_and_some_right_ones(
    kinds: list[tuple[bool, str]], most: int
) -> None:
    cards = cards_of([outline(number, right, label) for number, (right, label) in enumerate(kinds)])
    assert [card.value for card in cards] == sorted(card.value for card in cards)
    chosen = choose_cards(cards, most)
    assert len(chosen) == min(most, len(cards)) == len({card.images for card in chosen})
    right = sum(card.right for card in cards)
    if most >= 4:
        assert min(right, most // 4) <= sum(card.right for card in chosen)
    wrong = {card.label for card in cards if not card.right}
    if len(chosen) >= 4:
        assert wrong <= {card.label for card in chosen if not card.right}


def test_photos_are_called_by_their_own_names(tmp_path: Path) -> None:
    """A question names its photo; an earlier version's file left that to the truth."""
    truths = truths_of("presence", "yesno", ["yes"] * 6 + ["no"] * 6)
    for number, truth in enumerate(truths):
        truth.meta["source"] = f"line3/tower{number}"
    questions = asked(truths)
    for number in range(6):
        questions[number].source = f"line3/tower{number}.jpg (x 0 to 90, y 10 to 60)"
    scores, cases = scores_and_cases(truths, answers_of("tuned", truths, ["yes"] * 12), None, questions)
    found = Page(render_page(scores, cases, images(tmp_path)))
    assert "tower2.jpg (x 0 to 90, y 10 to 60)" in found.text and "line3/tower7" in found.text
    assert ".png" not in found.text
    assert all("tower" in image["alt"] for image in found.named("img"))


def test_what_is_left_out_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(gallery, "MAX_BYTES", 2_000)
    truths = truths_of("presence", "yesno", ["yes"] * 6 + ["no"] * 6)
    scores, cases = scores_and_cases(truths, answers_of("tuned", truths, ["yes"] * 12), None, asked(truths))
    found = Page(render_page(scores, cases, images(tmp_path)))
    shown = len(found.named("img"))
    assert 1 < shown < 12
    assert "12 pictures in the test, 6 with at least one answer that is not right." in found.text
    assert f"Shown are {shown}: " in found.text
    assert f"{12 - shown} are left out" in found.text


def test_worst_come_first_and_lost_ones_before_those_that_base_missed_too() -> None:
    cards = cards_of([outline(0, True), outline(1, False), outline(2, False, lost=True)])
    assert [card.images[0] for card in cards] == ["2.png", "1.png", "0.png"]


def test_what_tuning_cost_is_shown(made: tuple[Scores, Cases, Path]) -> None:
    scores, cases, folder = made
    whole = Slice(by="all", name="all", n=48, groups=48, tuned=Estimate(value=0.5))
    probe = Probe(
        truth=scores.truth.model_copy(update={"name": "general.jsonl"}),
        answers=scores.answers,
        baseline_answers=scores.baseline_answers,
        whole=whole,
        outcome="worse",
        verdict="tuning COST 12 points",
        tasks=scores.tasks[:1],
    )
    text = Page(render_page(scores.model_copy(update={"probe": probe}), cases, folder)).text
    assert "What tuning cost" in text and "tuning COST 12 points" in text and "general.jsonl" in text


def test_a_report_without_base_or_images(tmp_path: Path) -> None:
    truths = truths_of("presence", "yesno", ["yes", "no"] * 30)
    scores, cases = scores_and_cases(truths, answers_of("tuned", truths, ["yes", "no"] * 30))
    found = check_alone(render_page(scores, cases, tmp_path), *MORE)
    assert not found.named("form") and "“base”" not in found.text and "Tested on 60 questions." in found.text


def test_the_command_writes_the_report_beside_the_scores(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    folder = images(tmp_path / "data")
    truths = truths_of("presence", "yesno", ["yes", "no"] * 6)
    tuned = answers_of("tuned", truths, ["yes"] * 12)
    for name, rows in {
        "truth_test": truths,
        "questions_test": asked(truths),
        "answers": tuned.answers.values(),
    }.items():
        lines = [row.model_dump_json(exclude_none=True) for row in rows]
        (folder / f"{name}.jsonl").write_text("\n".join(lines), encoding="utf-8")
    command = [
        "--answers-file",
        str(folder / "answers.jsonl"),
        "--truth-file",
        str(folder / "truth_test.jsonl"),
    ]
    assert main([*command, "--output", str(tmp_path / "out"), "--bootstrap", "100"]) == 0
    found = check_alone((tmp_path / "out" / "report.html").read_text(encoding="utf-8"), *MORE)
    assert len(found.named("img")) == 12 and "it answers “yes” to everything" in found.text


ANSWERS: dict[TaskType, list[str]] = {
    "yesno": ["yes", "no", "perhaps", ""],
    "class": ["a", "b", "c", "d, or a"],
    "count": ["0", "3", "many"],
    "box": ["[0.1, 0.1, 0.5, 0.5]", "[0.6, 0.2, 0.9, 0.9]", "none", "left"],
    "text": ["a crack", "", "no crack at all"],
    "json": ['{"a": "b"}', '[{"a": "c", "d": "e"}]', "{"],
}
TRUE = {"yesno": 2, "class": 3, "count": 2, "box": 2, "text": 1, "json": 2}  # how many of them may be true
numbers = st.lists(st.tuples(*[st.integers(0, 11)] * 5), min_size=1, max_size=12)


@settings(max_examples=25)
@given(st.dictionaries(st.sampled_from(sorted(ANSWERS)), numbers, min_size=1, max_size=3), st.booleans())
def test_any_small_test_makes_a_page(kinds: dict[TaskType, list[tuple[int, ...]]], compared: bool) -> None:
    truths: list[Truth] = []
    tuned: list[str | None] = []
    base: list[str | None] = []
    for kind, rows in kinds.items():
        said = ANSWERS[kind]
        more = {"classes": ["a", "b", "c"]} if kind == "class" else {}
        labels = [("", "x", "y")[row[1] % 3] or None for row in rows]
        true = [said[row[0] % TRUE[kind]] for row in rows]
        truths += truths_of(kind, kind, true, label=labels, **more)
        tuned += [None if row[2] == 11 else said[row[2] % len(said)] for row in rows]
        base += [None if row[3] == 11 else said[row[3] % len(said)] for row in rows]
    if not any(text is not None for text in tuned):
        return
    scores, cases = scores_and_cases(
        truths,
        answers_of("tuned", truths, tuned),
        answers_of("base", truths, base) if compared else None,
        asked(truths),
    )
    found = check_alone(render_page(scores, cases, Path("absent")), *MORE)
    badges = [item["class"] for item in found.named("span") if (item.get("class") or "").startswith("badge")]
    assert len(badges) == len(scores.tasks)
    assert "nan" not in found.text and "None" not in found.text


# --- in a browser ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    program = installed_chromium()
    if program is None:
        pytest.skip("no Chromium: the script of the report is not tried in a browser")
    folder = tmp_path_factory.mktemp("browser")

    def run(text: str, *action: str) -> str:
        """What Chromium prints when it opens a page and then does something."""
        (folder / "page.html").write_text(text, encoding="utf-8")
        flags = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'profile'}"]
        address = (folder / "page.html").as_uri()
        done = subprocess.run(
            [program, *flags, "--virtual-time-budget=2000", *action, address],
            capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-1000:]
        return done.stdout

    try:  # where it cannot even show an empty page, that says nothing about ours
        assert "<html" in run("<html></html>", "--dump-dom")
    except (AssertionError, subprocess.TimeoutExpired) as error:
        pytest.skip(f"Chromium does not run here: {error}")
    return run


@pytest.fixture(scope="module")
def browse(chromium: Callable[..., str]) -> Callable[[str], str]:
    """Gives a page's elements after its scripts ran."""
    return lambda text: chromium(text, "--dump-dom")


def shown(text: str) -> tuple[int, int, str]:
    """Pictures and questions that are not hidden, and what the page says of them."""
    found = Page(text)
    cards = [item for item in found.named("figure") if item.get("class") == "case" and "hidden" not in item]
    rows = [item for item in found.named("div") if item.get("class") == "ask" and "hidden" not in item]
    (said,) = re.findall(r"(\d+ pictures, \d+ questions) shown", found.text)
    return len(cards), len(rows), said


@pytest.mark.browser
def test_the_script_runs_under_its_own_policy(browse: Callable[[str], str], written: str) -> None:
    text = browse(written)
    assert shown(text) == (12, 168, "12 pictures, 168 questions")
    assert all("hidden" not in form for form in Page(text).named("form"))


@pytest.mark.browser
def test_the_filter_shows_what_is_asked_for(browse: Callable[[str], str], written: str) -> None:
    wanted: list[tuple[dict[str, str], int]] = [
        ({"task": "kind", "state": "unparsed"}, 8),
        ({"task": "presence", "state": "lost"}, 4),
        ({"task": "box", "label": "crack", "state": "partly"}, 0),
        ({"words": "NOWHERE"}, 4),
        ({"words": "7.png", "task": "presence"}, 4),
        ({}, 168),
    ]
    asked_for = json.dumps([fields for fields, _ in wanted])
    driver = f"""
      const form = document.getElementById("filter"), said = [];
      for (const fields of {asked_for}) {{
        for (const field of form.elements) if (field.name) field.value = fields[field.name] || "";
        form.dispatchEvent(new Event("input"));
        const seen = (what) => document.querySelectorAll(what + ":not([hidden])").length;
        const count = document.getElementById("count").textContent;
        said.push([seen(".case"), seen(".case:not([hidden]) .ask"), count]);
      }}
      document.title = JSON.stringify(said);
    """
    free = re.sub(r"<meta http-equiv=[^>]*>", "", written)  # the driver is not the page's own script
    text = browse(free.replace("</body>", f"<script>{driver}</script></body>"))
    (title,) = re.findall(r"<title>(.*?)</title>", text)[:1]
    for (fields, questions), (cards, rows, said) in zip(
        wanted, json.loads(html.unescape(title)), strict=True
    ):
        assert (rows, said) == (questions, f"{cards} pictures, {questions} questions shown"), fields
        assert (cards > 0) == (questions > 0)


@pytest.mark.browser
def test_a_click_enlarges_a_picture_with_its_boxes_and_its_name(
    browse: Callable[[str], str], written: str
) -> None:
    driver = """
      document.querySelector(".picture:has(rect.tuned)").click();
      const dialog = document.querySelector("dialog");
      document.title = JSON.stringify([dialog.open, dialog.querySelectorAll("rect.tuned, rect.truth").length,
        dialog.innerText]);
    """
    free = re.sub(r"<meta http-equiv=[^>]*>", "", written)
    text = browse(free.replace("</body>", f"<script>{driver}</script></body>"))
    (title,) = re.findall(r"<title>(.*?)</title>", text)[:1]
    is_open, boxes, words = json.loads(html.unescape(title))
    assert is_open and boxes >= 2
    assert re.search(r"\d+\.png", words) and "true box" in words and "box of tuned" in words


@pytest.mark.browser
def test_it_prints_on_one_page(chromium: Callable[..., str], written: str, tmp_path: Path) -> None:
    chromium(written, f"--print-to-pdf={tmp_path / 'page.pdf'}", "--no-pdf-header-footer")
    assert len(re.findall(rb"/Type\s*/Page\b", (tmp_path / "page.pdf").read_bytes())) == 1
