"""`python -m data_prep check` on records that are wrong in one known way each."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image

from data_prep.__main__ import main as data_prep
from data_prep.commands.lint import FINDINGS
from data_prep.commands.made_records import is_held_out
from llava.common.errors import InputError
from tests.support.label_files import conversations_like

Findings = dict[str, dict[str, Any]]


def record(id: str, *texts: str, image: object = "a.png", **more: Any) -> dict[str, Any]:
    turns = [{"from": ("human", "gpt")[number % 2], "value": text} for number, text in enumerate(texts)]
    return {"id": id, "conversations": turns, **({} if image is None else {"image": image}), **more}


GOOD = [
    record("1", "<image>\nIs it broken?", "yes"),
    record("2", "<image>\nWhere is it?", "[0.100, 0.200, 0.300, 1.000]", "And now?", "There."),
    record("3", "<image><image>\nWhich one?", "The first.", image=["a.png", "sub/b.jpg"]),
    record("4", "Hello", "Hi.", image=None),
]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    (folder / "sub").mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), dtype=np.uint8)
    Image.fromarray(pixels[0]).save(folder / "a.png")
    Image.fromarray(pixels[1]).save(folder / "sub" / "b.jpg")
    Image.fromarray(pixels[2]).save(folder / "line3_017.png")
    Image.fromarray(pixels[0]).save(folder / "twin.bmp")  # a.png, under another name
    (folder / "cut.jpg").write_bytes((folder / "sub" / "b.jpg").read_bytes()[:-200])
    return folder


@pytest.fixture
def check(tmp_path: Path, photos: Path) -> Callable[..., tuple[int, Findings]]:
    """Writes a file per list of records and checks them; (exit code, findings by kind)."""

    def run(*files: list[Any], options: tuple[str, ...] = ()) -> tuple[int, Findings]:
        names = ["train.json", "val.json", "test.json"][: len(files)]
        for name, records in zip(names, files, strict=True):
            (tmp_path / name).write_text(json.dumps(records))
        out = tmp_path / "findings.json"
        paths = [str(tmp_path / name) for name in names]
        code = data_prep(["check", *paths, "--image-folder", str(photos), "--json", str(out), *options])
        found = json.loads(out.read_text())
        assert found["records"] == sum(map(len, files))
        assert all(FINDINGS[finding["kind"]] == finding["what"] for finding in found["findings"])
        return code, {finding["kind"]: finding for finding in found["findings"]}

    return run


def test_good_records_are_clean(check: Callable, capsys: pytest.CaptureFixture[str]) -> None:
    assert check(GOOD) == (0, {})
    assert "4 record(s) in 1 file(s), 2 picture(s), all decoded: nothing found" in capsys.readouterr().out


def test_made_pictures_are_only_trained_on(check: Callable) -> None:
    def about(id: str, image: str, **meta: Any) -> dict[str, Any]:
        return record(id, Q, "yes", image=image, meta=meta)

    photo, held_out = about("1", "a.png", group="g1"), about("2", "sub/b.jpg", group="g2")
    made = about("3", "line3_017.png", group="g1", groups=["g1", "g3"], synthetic=True)
    assert check([photo, made], [held_out]) == (0, {})

    code, found = check([photo], [held_out, made])
    assert (code, list(found)) == (1, ["made-held-out"])
    (example,) = found["made-held-out"]["examples"]
    assert example["file"].endswith("val.json") and example["detail"] == "line3_017.png"

    akin = about("3", "line3_017.png", group="g1", groups=["g1", "g2"], synthetic=True)
    code, found = check([photo, akin], [held_out])
    assert (code, list(found)) == (1, ["made-akin"])
    (example,) = found["made-akin"]["examples"]
    assert example["file"].endswith("train.json") and "g2" in example["detail"]

    # A made picture in two splits is found as any picture is.
    code, found = check([made], [held_out | {"image": "line3_017.png"}])
    assert (code, list(found)) == (1, ["shared-name"])


@pytest.mark.parametrize(
    ("name", "held_out"),
    [
        *((f"{name}.json", True) for name in ("val", "test", "calibration", "my_test", "valid2017")),
        *((f"{name}.json", False) for name in ("train", "trainval", "mix", "train_before_test", "contest")),
    ],
)
def test_the_name_of_a_file_says_whether_it_is_held_out(name: str, held_out: bool) -> None:
    assert is_held_out(Path(name)) == held_out


def turns(*pairs: tuple[object, object]) -> dict[str, Any]:
    return {
        "id": "9",
        "image": "a.png",
        "conversations": [{"from": who, "value": text} for who, text in pairs],
    }


Q = "<image>\nIs it broken?"


@pytest.mark.parametrize(
    ("bad", "kind", "detail"),
    [
        (record("9", Q, "yes", image="zzz.png"), "absent-picture", "zzz.png"),
        (record("9", Q, "yes", image="../secret.png"), "absent-picture", "outside"),
        (record("9", Q, "yes", image="sub"), "absent-picture", "sub"),
        (record("9", Q, "yes", image="x" * 300), "absent-picture", "xxx"),
        (record("9", Q, "yes", image="cut.jpg"), "damaged-picture", "cut.jpg"),
        (record("9", "Is it broken?", "yes"), "image-marks", "1 picture(s), 0 mark(s)"),
        (record("9", Q, "yes", image=None), "image-marks", "0 picture(s), 1 mark(s)"),
        (record("9", "<image>\nWhy?", "yes <image>"), "image-marks", "1 in answers"),
        (turns(("gpt", "yes"), ("human", Q)), "roles", "turn 0 is by 'gpt'"),
        (turns(("human", Q), ("assistant", "yes")), "roles", "'assistant'"),
        (record("9", Q, "yes", "And?"), "roles", "the last turn is by human"),
        (record("9", Q, " \n"), "empty-answer", "Is it broken?"),
        (record("9", "<image>\nWhy?", "word " * 2000), "too-long", "tokens"),
        (record("9", "<image>\nWhere?", "at [0.1, 0.2, 1.3, 0.4]"), "box-outside", "[0.1, 0.2, 1.3, 0.4]"),
        (record("9", "<image>\nWhere?", "at [-0.1, 0.2, 0.3, 0.4]"), "box-outside", "-0.1"),
        (record("9", "<image>\nIs broken_017.PNG whole?", "no"), "file-name", "broken_017.PNG"),
        (record("9", "<image>\nWhat of line3_017?", "x", image="line3_017.png"), "file-name", "line3_017"),
        (record("1", "<image>\nWhat is it?", "a disc"), "id-twice", "'1'"),
        (record("9", Q, "No."), "contradiction", "Is it broken?"),
        ({**record("9", "<image>\nWhat?", "a"), "id": 9}, "no-id", "9"),
        ({"id": "9", "image": "a.png"}, "not-a-record", "conversations"),
        (turns(("human", Q), ("gpt", None)), "not-a-record", "conversations"),
        (turns(("human", Q), ("gpt", "half \ud800")), "not-a-record", "conversations"),
        (record("9", Q, "yes", image={"path": "a.png"}), "not-a-record", "image"),
        (17, "not-a-record", "conversations"),
        ({**turns(("human", "<video>\nWhat?"), ("gpt", "a")), "image": None}, "unread", "the mark <video>"),
        ({**record("9", Q, "yes"), "system": "Be brief."}, "unread", "`system`"),
    ],
)
def test_each_fault_is_found_alone(check: Callable, bad: Any, kind: str, detail: str) -> None:
    code, found = check([*GOOD, bad])
    assert code == 1
    assert list(found) == [kind]
    assert found[kind]["count"] == 1
    (example,) = found[kind]["examples"]
    assert example["index"] == len(GOOD)
    assert detail in example["detail"]


WIDE = "wide.png"  # 400 x 200: in the padded square the picture lies at 0.25 to 0.75 of the height


@pytest.mark.parametrize("asked", [False, True])
@pytest.mark.parametrize(
    ("box", "meta", "found"),
    [
        ("[0.1, 0.02, 0.3, 0.2]", {"frame": "padded"}, True),
        ("[0.1, 0.8, 0.3, 0.95]", {"frame": "padded", "decimals": 3}, True),
        ("[0.1, 0.0, 0.3, 0.4]", {"frame": "padded"}, True),  # 0.15 of 0.4 on the picture
        ("[0.1, 0.1, 0.3, 0.6]", {"frame": "padded"}, False),  # 0.35 of 0.5
        ("[0.1, 0.25, 0.3, 0.75]", {"frame": "padded"}, False),
        ("[0.100, 0.240, 0.300, 0.250]", {"frame": "padded", "decimals": 3}, True),
        ("[0.10, 0.24, 0.30, 0.25]", {"frame": "padded", "decimals": 2}, False),  # its edge, rounded
        ("[0.2, 0.1, 0.2, 0.1]", {"frame": "padded"}, True),  # without an area
        ("[0.2, 0.5, 0.2, 0.5]", {"frame": "padded"}, False),
        ("[0.1, 0.02, 0.3, 0.2]", {"frame": "whole"}, False),
        ("[0.1, 0.02, 0.3, 0.2]", {}, False),
        # The size that meta states, 200 x 400, is believed: the picture lies at 0.25 to 0.75 of the width.
        ("[0.3, 0.02, 0.5, 0.2]", {"frame": "padded", "width": 200, "height": 400}, False),
        ("[0.02, 0.3, 0.2, 0.5]", {"frame": "padded", "width": 200, "height": 400}, True),
        ("[0.1, 0.02, 0.3, 0.2]", {"frame": "padded", "width": 10**400, "height": 1}, True),
    ],
)
def test_boxes_in_the_padding(
    check: Callable, photos: Path, box: str, meta: dict[str, Any], found: bool, asked: bool
) -> None:
    Image.new("RGB", (400, 200)).save(photos / WIDE)
    texts = (f"<image>\nWhat is in {box}?", "a disc") if asked else ("<image>\nWhere?", f"at {box}")
    code, findings = check([record("1", *texts, image=WIDE, meta=meta)], options=("--no-pictures",))
    assert (code, list(findings)) == ((1, ["box-in-padding"]) if found else (0, []))
    if found:
        (example,) = findings["box-in-padding"]["examples"]
        assert example["detail"].endswith(("of a 400 x 200 picture", "of a 200 x 400 picture"))


def test_a_box_in_the_padding_of_an_image_that_is_absent(check: Callable) -> None:
    bad = record("1", "<image>\nWhere?", "[0.1, 0.02, 0.3, 0.2]", image="none.png", meta={"frame": "padded"})
    assert list(check([bad])[1]) == ["absent-picture"]


SIDES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=2)


@settings(max_examples=40, suppress_health_check=list(HealthCheck))
@given(width=SIDES, height=SIDES, decimals=SIDES)
def test_any_size_that_meta_states_is_checked(
    check: Callable, width: object, height: object, decimals: object
) -> None:
    meta = {"frame": "padded", "width": width, "height": height, "decimals": decimals}
    code, found = check([record("1", "<image>\nWhere?", "[0.4, 0.4, 0.6, 0.6]", meta=meta)])
    assert code == bool(found) and set(found) <= {"box-in-padding"}  # it may, of a very narrow picture


def test_questions_may_use_words_that_are_names(check: Callable) -> None:
    fine = [
        record("5", "<image>\nIs line 3 of 017 fine? See e.g. a.", "no", image="line3_017.png"),
        record("6", "<image>\nWhich file type, png or jpg?", "png"),
    ]
    assert check([*GOOD, *fine]) == (0, {})


def test_one_sided_answers(check: Callable) -> None:
    def answers(question: str, yes: int, no: int, start: int) -> list[dict[str, Any]]:
        texts = ["Yes"] * yes + ["no."] * no
        # Text only: the same question of one picture would be a contradiction.
        return [
            record(f"{start + number}", question, text, image=None, meta={"task": "presence"})
            for number, text in enumerate(texts)
        ]

    assert check(answers("Broken?", 18, 2, 0)) == (0, {})
    assert check(answers("Broken?", 18, 1, 0)) == (0, {})  # too few
    code, found = check(answers("Broken?", 19, 1, 0))
    assert code == 1
    assert [example["detail"] for example in found["one-sided"]["examples"]] == [
        "'yes/no of task presence': 95% of 20 answers are 'yes'",
        "'Broken?': 95% of 20 answers are 'yes'",
    ]
    # Even over the task, but each wording tells its answer.
    _, found = check(answers("Broken?", 20, 0, 0) + answers("Whole?", 0, 20, 100))
    assert [example["detail"][:8] for example in found["one-sided"]["examples"]] == ["'Broken?", "'Whole?'"]
    # A val file is looked at by itself.
    code, found = check(answers("Broken?", 20, 20, 0), answers("Broken?", 20, 0, 100))
    assert {Path(example["file"]).name for example in found["one-sided"]["examples"]} == {"val.json"}
    # Few defects are natural where train mixes the answers.
    assert check(answers("Broken?", 20, 20, 0), answers("Broken?", 1, 30, 100)) == (0, {})


def test_longer_conversations_are_not_one_sided(check: Callable) -> None:
    def conversations(*more: str) -> list[dict[str, Any]]:
        return [record(str(number), "Broken?", "Yes", *more, image=None) for number in range(30)]

    assert check(conversations("Where?", "Here.")) == (0, {})
    assert list(check(conversations())[1]) == ["one-sided"]


def test_images_that_two_files_hold(check: Callable) -> None:
    train = [record("1", Q, "yes"), record("2", Q, "yes", image="sub/b.jpg")]
    code, found = check(train, [record("3", Q, "yes"), record("4", Q, "yes", image="line3_017.png")])
    assert code == 1 and list(found) == ["shared-name"]
    assert "a.png in " in found["shared-name"]["examples"][0]["detail"]
    code, found = check(train, [record("3", Q, "yes", image="twin.bmp")])
    assert code == 1 and list(found) == ["shared-picture"]
    assert "twin.bmp is a.png of" in found["shared-picture"]["examples"][0]["detail"]
    assert check([*train, record("3", Q, "yes", image="twin.bmp")]) == (0, {})  # within one file
    both = [record("3", Q, "yes", image="twin.bmp")]
    assert check(train, both, options=("--no-pictures",)) == (0, {})


def test_images_need_not_be_decoded(check: Callable) -> None:
    bad = [record("9", Q, "yes", image="cut.jpg"), record("10", Q, "yes", image="zzz.png")]
    _, found = check([*GOOD, *bad], options=("--no-pictures",))
    assert list(found) == ["absent-picture"]


def test_length_is_counted_with_a_tokenizer_if_there_is_one(check: Callable, tiny_model_dir: Path) -> None:
    long = [record("1", Q, "x" * 400)]  # 100 tokens by its bytes, more for a tokenizer
    assert check(long, options=("--max-length", "700"))[0] == 0
    assert check(long, options=("--max-length", "600"))[0] == 1
    code, found = check(long, options=("--max-length", "700", "--tokenizer", str(tiny_model_dir)))
    assert code == 1 and list(found) == ["too-long"]
    assert check(GOOD, options=("--max-length", "100", "--picture-tokens", "8"))[0] == 0


def test_examples_are_few_and_counts_whole(check: Callable, capsys: pytest.CaptureFixture[str]) -> None:
    _, found = check([record(str(number), Q, "") for number in range(30)])
    assert found["empty-answer"]["count"] == 30
    assert len(found["empty-answer"]["examples"]) == 5
    shown = capsys.readouterr().out
    assert "empty-answer" in shown and "30" in shown and "train.json 0" in shown


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[{"id": "1"', "not valid JSON"),
        ('{"id": "1"}', "expected a JSON list"),
        ("[]", "holds no records"),
        ("[1, \xff]", "not UTF-8"),
    ],
)
def test_unreadable_files_are_refused(tmp_path: Path, photos: Path, text: str, message: str) -> None:
    file = tmp_path / "train.json"
    file.write_bytes(text.encode("latin-1"))
    with pytest.raises(InputError, match=message) as error:
        data_prep(["check", str(file), "--image-folder", str(photos)])
    assert str(file) in str(error.value)


def test_exit_codes_of_the_command(tmp_path: Path, photos: Path, repo: Path) -> None:
    def run(*arguments: str) -> tuple[int, str]:
        command = [sys.executable, "-m", "data_prep", "check", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, cwd=repo)
        return done.returncode, done.stdout + done.stderr

    (tmp_path / "bad.jsonl").write_text(json.dumps(record("1", Q, "")) + "\n")
    assert run(str(tmp_path / "bad.jsonl"), "--image-folder", str(photos))[0] == 1
    code, text = run(str(tmp_path / "none.json"), "--image-folder", str(photos))
    assert code == 2 and text.strip() == f"error: {tmp_path / 'none.json'}: no such file"
    assert "1 something found" in run("--help")[1]


@settings(max_examples=60, suppress_health_check=list(HealthCheck))
@given(records=st.lists(conversations_like("a.png"), min_size=1, max_size=4))
@example(records=[{"id": "\ud800", "conversations": []}])
def test_any_records_are_checked(check: Callable, records: list[Any]) -> None:
    code, found = check(records)
    assert code == bool(found)
