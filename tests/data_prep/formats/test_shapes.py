"""ShapeCollector: each shape once, and a note on whatever is not taken as written."""

from data_prep.annotations import Shape
from data_prep.formats.shapes import ShapeCollector

BOX = Shape("disc", (1.0, 2.0, 3.0, 4.0))


def test_duplicates_are_noted_and_kept_once() -> None:
    shapes = ShapeCollector()
    shapes.add(BOX, "a.xml: box 1 (disc)")
    shapes.add(Shape("nest", BOX.box), "a.xml: box 2 (nest)")
    shapes.add(Shape("disc", BOX.box, area=2.0), "a.xml: box 3 (disc)")
    shapes.add(Shape("disc", BOX.box), "a.xml: box 4 (disc)")
    assert [shape.name for shape in shapes.shapes] == ["disc", "nest", "disc"]
    assert shapes.notes == ["a.xml: box 4 (disc) is there twice; kept once"]


def test_empty_boxes_are_noted_and_left_out() -> None:
    shapes = ShapeCollector()
    for box in ((1.0, 2.0, 1.0, 4.0), (1.0, 2.0, 3.0, 2.0), BOX.box):
        shapes.add_unless_empty(Shape("disc", box), "a.txt, line 1 ('disc'):")
    assert shapes.shapes == (BOX,)
    assert shapes.notes == ["a.txt, line 1 ('disc'): the box has no width or no height; left out"] * 2


def test_left_out_kinds_are_counted_in_one_note() -> None:
    shapes = ShapeCollector()
    shapes.note_left_out("a.json: left out")
    assert shapes.notes == []
    for kind in ("polyline", "\x1bpoint", "polyline"):
        shapes.leave_out(kind)
    shapes.note_left_out("a.json: left out")
    assert shapes.notes == ["a.json: left out: 1 \\x1bpoint, 2 polyline"]
