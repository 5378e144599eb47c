"""Files of MMAD, POPE and VLMEvalKit in their real shapes: converted, read as questions, scored."""

import base64
import csv
import json
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from eval.answering.questions import find_images, read_questions
from eval.benchmarks import main
from eval.score import main as score
from eval.scoring.answers import read_truth
from eval.scoring.schema import Scores
from llava.common.errors import InputError
from llava.common.files import write_jsonl
from tests.support.score_rows import answer

# The keys that mmad.json really has; most are not for us.
MMAD = {
    "DS-MVTec/bottle/image/broken_large/000.png": {
        "image_path": "image/broken_large/000.png",
        "mask_path": "rbg_mask/broken_large/000_rbg_mask.png",
        "conversation": [
            {
                "Question": "Is there any defect in the object?",
                "Answer": "A",
                "Options": {"A": "Yes.", "B": "No."},
                "type": "Anomaly Detection",
                "annotation": True,
            },
            {
                "Question": "What is the type of the defect?",
                "Answer": "C",
                "Options": {"A": "Scratch.", "B": "Dent.", "C": "Broken large.", "D": "Stain."},
                "type": "Defect Classification",
                "annotation": True,
            },
        ],
        "similar_templates": ["MVTec-AD/bottle/train/good/001.png"],
        "random_templates": ["MVTec-AD/bottle/train/good/002.png"],
    },
    "VisA/pcb1/test/good/7.JPG": {
        "conversation": [
            {
                "Question": "Is there any defect in the object?",
                "Answer": "B",
                "Options": {"A": "Yes.", "B": "No."},
                "type": "Anomaly Detection",
            },
            {
                "Question": "What is the type of the defect?",
                "Answer": "A",
                "Options": {"A": "Bent.", "B": "Melt."},
                "type": "Defect Classification",
            },
        ]
    },
}


def image(colour: str, kind: str = "PNG") -> str:
    content = BytesIO()
    Image.new("RGB", (40, 30), colour).save(content, kind)
    return base64.b64encode(content.getvalue()).decode()


def write_tsv(path: Path, rows: list[dict[str, Any]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter="\t")
        writer.writeheader()
        writer.writerows(rows)


def scored(folder: Path, texts: list[str]) -> Scores:
    """The answers `texts`, in the order of the questions, scored."""
    questions = read_questions(folder / "questions.jsonl")
    assert [str(q.question_id) for q in questions] == [
        str(truth.question_id) for truth in read_truth(folder / "truth.jsonl")[1]
    ]
    rows = [answer(q.question_id, text) for q, text in zip(questions, texts, strict=True)]
    write_jsonl(folder / "answers.jsonl", rows)
    command = ["--answers-file", folder / "answers.jsonl", "--truth-file", folder / "truth.jsonl"]
    assert score([*map(str, command), "--output", str(folder / "out")]) == 0
    return Scores.model_validate_json((folder / "out" / "scores.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("indent", [None, 1])
def test_mmad(tmp_path: Path, indent: int | None) -> None:
    (tmp_path / "mmad.json").write_text(json.dumps(MMAD, indent=indent))
    assert main([str(tmp_path / "mmad.json"), "--output", str(tmp_path / "o")]) == 0
    first, second, _, fourth = read_questions(tmp_path / "o" / "questions.jsonl")
    assert first.images == ["DS-MVTec/bottle/image/broken_large/000.png"]
    assert first.text == (
        "Is there any defect in the object?\nA. Yes.\nB. No.\n"
        "Answer with the option's letter from the given choices directly."
    )
    assert (second.choices, fourth.choices) == (["A", "B", "C", "D"], ["A", "B"])
    scores = scored(tmp_path / "o", ["A", "C. Broken large.", "(A)", "D"])
    detection, kinds = scores.tasks
    assert (detection.task, kinds.task) == ("Anomaly Detection", "Defect Classification")
    assert detection.tuned.metrics["accuracy"].value == 0.5 and kinds.tuned.metrics["accuracy"].value == 0.5
    assert kinds.classes == ["A", "B", "C", "D"] and kinds.tuned.unparsed == 0
    assert {(part.by, part.name): part.tuned.value for part in detection.slices} == {
        ("truth", "bottle"): 1,
        ("truth", "pcb1"): 0,
        ("source", "DS-MVTec"): 1,
        ("source", "VisA"): 0,
    }


def test_pope(tmp_path: Path) -> None:
    lines = [
        {
            "question_id": i + 1,
            "image": f"COCO_val2014_{i // 2}.jpg",
            "text": f"Is there a {thing} in the image?",
        }
        | {"label": "yes" if i % 2 else "no"}
        for i, thing in enumerate(["snowboard", "person", "car", "dog"])
    ]
    write_jsonl(tmp_path / "coco_pope_random.json", lines)
    assert main([str(tmp_path / "coco_pope_random.json"), "--output", str(tmp_path / "o")]) == 0
    (asked, *_) = read_questions(tmp_path / "o" / "questions.jsonl")
    assert (asked.text, asked.choices) == ("Is there a snowboard in the image?", ["yes", "no"])
    (task,) = scored(tmp_path / "o", ["No", "Yes, there is a person in the image.", "Yes", "Yes"]).tasks
    assert (task.task, task.groups) == ("coco_pope_random", 2)
    assert task.tuned.confusion == [[2, 0, 0], [1, 1, 0]]


def test_vlmevalkit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Pictures in base64, one of them borrowed, two in a list; hints, categories, an empty option."""
    one, two = image("red"), image("blue", "JPEG")
    empty = dict.fromkeys(("hint", "A", "B", "C", "D"), "")
    rows = [
        {
            "index": 1,
            "image": one,
            "question": "Which colour?",
            "A": "red",
            "B": "blue",
            "C": "grey",
            "answer": "A",
        },
        {
            "index": 2,
            "image": "1",
            "question": "Which one?",
            "hint": "Look.",
            "A": "x",
            "B": "y",
            "answer": "B",
        },
        {"index": 3, "image": f"['{one}', '{two}']", "question": "Same?", "category": "pair", "answer": "No"},
        {"index": 4, "image": two, "question": "What\nis it?", "category": "free", "answer": "a blue field"},
        {"index": 5, "image": two, "question": "Hidden?", "category": "free", "answer": ""},
    ]
    columns = ("index", "image", "question", *empty, "answer", "category")
    write_tsv(
        tmp_path / "set.tsv",
        [{name: ({**empty, "category": "colour"} | row)[name] for name in columns} for row in rows],
    )
    folder = tmp_path / "o"
    assert main([str(tmp_path / "set.tsv"), "--output", str(folder)]) == 0
    assert "left out: 1 row without an answer" in capsys.readouterr().out
    questions = read_questions(folder / "questions.jsonl")
    assert [len(q.images) for q in questions] == [1, 1, 2, 1]
    assert questions[0].images == questions[1].images and questions[3].images[0].endswith(".jpg")
    assert questions[1].text.startswith("Look.\nWhich one?\nA. x\nB. y\nAnswer with") and questions[1].choices
    found = find_images(questions, folder)
    reds = [Image.open(path).getchannel("R").getextrema()[1] for path in found.values()]
    assert sorted(red > 200 for red in reds) == [False, True]
    colour, pair, free = scored(folder, ["A", "A", "no", "A blue field."]).tasks
    assert (colour.type, pair.type, free.type) == ("class", "yesno", "text")
    assert (colour.groups, colour.tuned.metrics["accuracy"].value) == (1, 0.5)
    assert pair.tuned.metrics["accuracy"].value == 1 and free.tuned.metrics["exact"].value == 1


POPE_LINE = '{"question_id": 1, "image": "a.jpg", "text": "?", "label": "yes"}'


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("mmad.json", '{"a.png": {"x": 1}}', "'a.png' has no list `conversation`"),
        (
            "mmad.json",
            '{"a.png": {"conversation": [{"Question": "?", "Options": {"A": "x", "B": ""}, "Answer": "C"}]}}',
            "'C' is none of its `Options`",
        ),
        ("mmad.json", "[1]", "neither MMAD's JSON"),
        ("mmad.json", "{}", "no question with an answer"),
        (
            "pope.json",
            '{"question_id": 1, "image": "a", "text": "?", "label": "maybe"}',
            "line 1: `label` is",
        ),
        ("pope.jsonl", '{"question_id": 1, "text": "?", "label": "yes"}', "line 1: no `image`"),
        ("pope.jsonl", "x", "line 1: not valid JSON"),
        ("pope.jsonl", POPE_LINE + "\n" + POPE_LINE, "question '1' stands there twice"),
        ("a.tsv", "index\tquestion\n1\t?", "no column 'answer'"),
        ("a.tsv", 'index\tquestion\tanswer\timage_path\n1\t"?\tyes\ta\n2\t?\tno\ta', "quotes are not closed"),
        ("a.tsv", "index\tquestion\tanswer\timage_path\n1\t?\tyes", "row 2: not as many cells"),
        ("a.tsv", "index\tquestion\tanswer\timage_path\n1\t?\tyes\ta\tb", "row 2: not as many cells"),
        ("a.tsv", "index\tquestion\tanswer\tA\tB\timage_path\n1\t?\tZ\tx\ty\ta", "row 2: `answer` 'Z'"),
        ("a.tsv", "index\tquestion\tanswer\n1\t?\tyes", "row 2: no `image_path`"),
        ("a.tsv", "index\tquestion\tanswer\timage\n1\t?\tyes\t9", "borrows the picture of row '9'"),
        ("a.tsv", f"index\tquestion\tanswer\timage\n1\t?\tyes\t{'@' * 70}", "row 2: `image` is no base64"),
        ("a.tsv", f"index\tquestion\tanswer\timage\n1\t?\tyes\t{'A' * 72}", "row 2: "),
    ],
)
def test_bad_files_are_one_line(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError) as caught:
        main([str(tmp_path / name), "--output", str(tmp_path / "o")])
    assert message in str(caught.value) and "\n" not in str(caught.value) and name in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == [name]
