"""What answers become: decisions, kinds, boxes put back from tiles, the same in several photos."""

from __future__ import annotations

from pathlib import Path

import pytest

from eval.predict import AskedQuestion, PhotoQuestion
from eval.survey.collect import find_in
from eval.survey.exif import NOWHERE
from eval.survey.findings import Finding
from eval.survey.photos import PhotoFacts
from eval.survey.sightings import DecisionRule, Likelier, Part, Wordings
from llava.common.boxes import Box
from llava.common.records import Answer, Call

WORDS = Wordings({"crack": "crack", "Rost": "rust"}, "nowhere")
PRESENCE = PhotoQuestion("Any?", "presence", "presence", ("yes", "no"), ("yes", "no"), "defect")
KIND = PhotoQuestion("What?", "kind", "kind", ("crack", "Rost", "none"), about="defect")
CRACK, RUST = (
    PhotoQuestion(f"Is there {kind}?", "presence_of", "presence", ("yes", "no"), ("yes", "no"), kind)
    for kind in ("crack", "rust")
)
BOX = {
    kind: PhotoQuestion(f"Box of {kind}?", "box", "where", None, None, kind, True, "whole")
    for kind in ("crack", "rust")
}
PLACE = {
    kind: PhotoQuestion(f"Where is {kind}?", "where", "where", None, None, kind, True)
    for kind in ("crack", "rust")
}
COUNT = PhotoQuestion("How many?", "count", "count", about="defect")
REPORT = PhotoQuestion("Describe.", "describe", "describe", about="defect")


def answer(part: str, asked: PhotoQuestion, text: str, *choices: float, error: str = "") -> AskedQuestion:
    metadata: dict[str, object] = {"error": error} if error else {}
    if choices:
        metadata["choices"] = dict(zip(asked.choices or (), choices, strict=False))
    line = Answer(
        question_id=part + asked.text,
        prompt=asked.text,
        text=text,
        answer_id="",
        model_id="m",
        metadata=metadata,
    )
    return AskedQuestion(part, Path(part), asked, line)


def whole(
    part: str, p_yes: float, crack: float = 0.6, rust: float = 0.2, box: str = ""
) -> list[AskedQuestion]:
    """The answers about a part: a defect with a probability, of a kind, the crack in a box."""
    return [
        answer(part, PRESENCE, "yes" if p_yes > 0.5 else "no", p_yes, 1 - p_yes),
        answer(part, KIND, "crack", crack, rust, 1 - crack - rust),
        *([answer(part, BOX["crack"], box)] if box else []),
    ]


def photo(name: str, size: tuple[int, int] = (1000, 500), problem: str = "") -> PhotoFacts:
    return PhotoFacts(name, Path(name), "0" * 64, (0, 0) if problem else size, NOWHERE, b"", problem)


def findings(
    rows: list[AskedQuestion],
    *photos: PhotoFacts,
    parts: list[Part] | None = None,
    groups: list[int] | None = None,
    rule: DecisionRule | None = None,
) -> list[Finding]:
    parts = parts or [Part(each.name, each.name, each.path) for each in photos]
    return find_in(parts, rows, photos, groups or list(range(len(photos))), WORDS, rule or Likelier())


def test_a_defect_has_its_kind_place_count_and_report() -> None:
    rows = [
        *whole("a/b.jpg", 0.8, 0.6, 0.2, "[0.1, 0.2, 0.3, 0.4]"),
        answer("a/b.jpg", PLACE["crack"], "left"),
        answer("a/b.jpg", PLACE["rust"], "right"),
        answer("a/b.jpg", COUNT, "2"),
        answer("a/b.jpg", REPORT, "A crack at the left."),
    ]
    (found,) = findings(rows, photo("a/b.jpg"))
    assert (found.decision, found.kind, found.p_yes) == ("defect", "crack", 0.8)
    assert found.kind_probability == pytest.approx(0.75), "among the kinds: none is no kind"
    assert found.box == (0.1, 0.2, 0.3, 0.4) and found.place == "left"
    assert (found.count, found.report, found.asset) == (2, "A crack at the left.", "a")


def test_a_sound_photo_is_one_finding_without_a_kind() -> None:
    (found,) = findings(whole("a.jpg", 0.2, box="[0.1, 0.2, 0.3, 0.4]"), photo("a.jpg"))
    assert (found.decision, found.kind, found.box, found.p_yes) == ("sound", None, None, 0.2)


def test_a_further_kind_counts_where_both_questions_say_so() -> None:
    def kinds(p_rust: float, rust: float) -> list[tuple[str, str | None]]:
        rows = [*whole("a.jpg", 0.9, 0.6, rust), answer("a.jpg", CRACK, "yes", 0.9, 0.1)]
        rows.append(answer("a.jpg", RUST, "yes" if p_rust > 0.5 else "no", p_rust, 1 - p_rust))
        return [(found.about, found.kind) for found in findings(rows, photo("a.jpg"))]

    assert kinds(0.9, 0.35) == [("defect", "crack"), ("rust", "rust")]
    assert kinds(0.9, 0.02) == kinds(0.4, 0.35) == [("defect", "crack")]


@pytest.mark.parametrize(
    ("rows", "decision", "p_yes", "kind"),
    [
        ([answer("a.jpg", CRACK, "no", 0.2, 0.8), answer("a.jpg", RUST, "yes", 0.7)], "defect", 0.7, "rust"),
        ([answer("a.jpg", KIND, "none", 0.1, 0.1, 0.8)], "sound", 0.2, None),
        ([answer("a.jpg", KIND, "Rost", 0.1, 0.6, 0.3)], "defect", 0.7, "rust"),
        ([answer("a.jpg", PRESENCE, "Yes."), answer("a.jpg", KIND, "Rost")], "defect", None, "rust"),
        ([answer("a.jpg", PRESENCE, "Hm.")], "ask", None, None),
    ],
)  # fmt: skip
def test_other_recipes_and_servers_without_probabilities(
    rows: list[AskedQuestion], decision: Call, p_yes: float | None, kind: str | None
) -> None:
    (found,) = findings(rows, photo("a.jpg"))
    assert (found.decision, found.kind) == (decision, kind)
    assert found.p_yes == (p_yes if p_yes is None else pytest.approx(p_yes))
    assert found.reason == ("no answer" if decision == "ask" else None)


class Careful:
    certified = "at most 5% are missed"

    def decide(self, p_yes: float) -> Call:
        return "defect" if p_yes > 0.9 else "sound" if p_yes < 0.1 else "ask"


def test_a_rule_decides_and_a_certified_one_wants_probabilities() -> None:
    names = ("a.jpg", "b.jpg", "c.jpg")
    rows = [row for name, p in zip(names, (0.95, 0.5, 0.05), strict=True) for row in whole(name, p)]
    found = findings(rows, *map(photo, names), rule=Careful())
    assert [(each.decision, each.reason) for each in found] == [
        ("defect", None),
        ("ask", "uncertain"),
        ("sound", None),
    ]
    (asked,) = findings([answer("a.jpg", PRESENCE, "no")], photo("a.jpg"), rule=Careful())
    assert (asked.decision, asked.reason) == ("ask", "no answer")


def test_what_looks_like_nothing_known_is_for_a_person() -> None:
    """However sure the model is; of two tiles one is twice as likely to be unusual."""
    parts = [tile(1, (0, 0, 600, 500)), tile(2, (400, 0, 1000, 500))]
    for p_value, expected in ((0.004, ("ask", "never seen", 0.008)), (0.006, ("sound", None, 0.012))):
        rows = [*whole("a.jpg#1", 0.1), *whole("a.jpg#2", 0.02)]
        for row, value in zip(rows, [0.5] * (len(rows) // 2) + [p_value] * (len(rows) // 2), strict=True):
            row.answer.metadata["novelty"] = {"p_value": value}
        (found,) = findings(rows, photo("a.jpg"), parts=parts)
        assert (found.decision, found.reason, found.novelty) == expected


def test_where_a_photo_is_like_nothing_known_is_kept() -> None:
    """In 0..1 of the photo, also of a tile that the model saw padded."""
    parts = [tile(1, (0, 0, 600, 500)), tile(2, (400, 0, 1000, 500))]
    rows = [*whole("a.jpg#1", 0.1), *whole("a.jpg#2", 0.02)]
    where = {"box": [0, -0.5, 1, 1.5], "rows": ["00", "09"]}
    for row in rows[len(rows) // 2 :]:
        row.answer.metadata["novelty"] = {"p_value": 0.001, "map": where}
    (found,) = findings(rows, photo("a.jpg"), parts=parts)
    (only,) = found.novelty_maps
    assert only.rows == ["00", "09"]
    height = 500 / photo("a.jpg").size[1]
    assert only.box == pytest.approx((0.4, -0.5 * height, 1, 1.5 * height))


def test_what_cannot_be_read_or_answered_is_for_a_person() -> None:
    rows = [
        answer("cut.jpg", PRESENCE, "", error="cut.jpg: cut short"),
        answer("b.jpg", PRESENCE, "", error="too long"),
    ]
    cut, refused = findings(rows, photo("cut.jpg", problem="cut short"), photo("b.jpg"), groups=[0, 0])
    assert (cut.decision, cut.reason, cut.problem, cut.width) == ("ask", "unreadable", "cut short", None)
    assert (refused.decision, refused.reason, refused.problem) == ("ask", "no answer", "too long")


def test_the_same_in_photos_of_a_group_is_one_finding() -> None:
    names = ("a.jpg", "b.jpg", "c.jpg", "d.jpg")
    rows = [row for name, p in zip(names, (0.7, 0.9, 0.2, 0.8), strict=True) for row in whole(name, p)]
    found = findings(rows, *map(photo, names), groups=[0, 0, 0, 3])
    assert [(each.decision, each.photos, each.p_yes) for each in found] == [
        ("defect", ["b.jpg", "a.jpg"], 0.9),
        ("sound", ["c.jpg"], 0.2),
        ("defect", ["d.jpg"], 0.8),
    ]
    assert len({each.id for each in found}) == 3


def tile(number: int, crop: Box | None) -> Part:
    return Part(f"a.jpg#{number}", "a.jpg", Path(f"tile{number}.jpg"), crop)


def test_boxes_in_tiles_are_put_back_and_those_of_neighbours_merged() -> None:
    """Two tiles of 600 pixels cut one crack in two; the third shows another far away, the whole photo all."""
    parts = [
        tile(0, None),
        tile(1, (0, 0, 600, 500)),
        tile(2, (400, 0, 1000, 500)),
        tile(3, (1400, 0, 2000, 500)),
    ]
    rows = [
        *whole("a.jpg#0", 0.6, box="[0.10, 0.1, 0.50, 0.9]"),
        *whole("a.jpg#1", 0.7, box="[0.5, 0.2, 1.0, 0.4]"),  # 300 to 600
        *whole("a.jpg#2", 0.9, box="[0.0, 0.2, 0.5, 0.4]"),  # 400 to 700
        *whole("a.jpg#3", 0.8, box="[0.5, 0.5, 1.0, 1.0]"),
    ]
    near, far = findings(rows, photo("a.jpg", (2000, 500)), parts=parts)
    assert near.p_yes == 0.9 and near.box == pytest.approx((0.15, 0.2, 0.35, 0.4))
    assert near.place == "x 400 to 1000, y 0 to 500"
    assert far.p_yes == 0.8 and far.box == pytest.approx((0.85, 0.5, 1.0, 1.0))
    assert near.id != far.id


def test_a_photo_is_as_sound_as_its_worst_tile() -> None:
    parts = [tile(1, (0, 0, 600, 500)), tile(2, (400, 0, 1000, 500))]
    (found,) = findings([*whole("a.jpg#1", 0.1), *whole("a.jpg#2", 0.3)], photo("a.jpg"), parts=parts)
    assert (found.decision, found.p_yes) == ("sound", 0.3)
    (found,) = findings([*whole("a.jpg#1", 0.1), *whole("a.jpg#2", 0.6)], photo("a.jpg"), parts=parts)
    assert (found.decision, found.photos, found.place) == ("defect", ["a.jpg"], "x 400 to 1000, y 0 to 500")
