"""The output as other tools take it: `datasets` opens it unchanged, and it keeps LLaVA's rules.

The rules are written down here once more, from LLaVA's own loader (haotian-liu/LLaVA, llava/train/train.py,
`LazySupervisedDataset` and `preprocess_multimodal`), so that a slip in llava/common/records.py shows.
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from data_prep.__main__ import main as data_prep
from tests.support.photos import write_photos

SPLITS = ("train", "val", "test")


@pytest.fixture(scope="module")
def converted(repo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every family in three languages, dialogues, and general records with and without a picture."""
    folder = tmp_path_factory.mktemp("load")
    photos = write_photos(folder / "photos", count=45)
    (folder / "general").mkdir()
    Image.new("RGB", (40, 30), "green").save(folder / "general" / "0.png")
    general = [
        {"id": 1, "conversations": turns("Good morning", "Good morning to you.", "Thanks", "Welcome.")},
        {"id": "p", "image": "0.png", "conversations": turns("<image>\nWhat is it?", "A lawn."), "more": [1]},
    ]
    (folder / "general.json").write_text(json.dumps(general))
    recipe = repo / "configs" / "recipes" / "insulator_full.yaml"
    where = ["--source", str(photos), "--recipe", str(recipe), "--output", str(folder / "out")]
    blend = ["--blend", str(folder / "general.json"), "--blend-image-folder", str(folder / "general")]
    share = 2 / (2 + records_without(folder, where))
    assert data_prep(["convert", *where, "dialogues=1", *blend, "--blend-share", str(share)]) == 0
    return folder / "out"


def turns(*texts: str) -> list[dict[str, str]]:
    return [{"from": ("human", "gpt")[number % 2], "value": text} for number, text in enumerate(texts)]


def records_without(folder: Path, options: list[str]) -> int:
    """The count of train records before anything is blended in: two general ones are a share of it."""
    alone = [*options[:-1], str(folder / "alone")]
    assert data_prep(["convert", *alone, "dialogues=1"]) == 0
    return len(json.loads((folder / "alone" / "train.json").read_text()))


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """`load_dataset("json", data_files=...)`, without a network and with a cache of its own."""
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    datasets = pytest.importorskip("datasets", reason="needs the library datasets: scripts/setup.sh dev")

    def run(files: Any) -> Any:
        return datasets.load_dataset("json", data_files=files, cache_dir=str(tmp_path / "cache"))

    datasets.disable_progress_bars()
    yield run
    datasets.enable_progress_bars()


def without_nothing(value: Any) -> Any:
    """A value without the fields that hold nothing: a table has each field in every row."""
    if isinstance(value, dict):
        return {key: without_nothing(part) for key, part in value.items() if part is not None}
    return [without_nothing(part) for part in value] if isinstance(value, list) else value


def test_what_is_tested_here_holds_all_kinds_of_records(converted: Path) -> None:
    records = json.loads((converted / "train.json").read_text())
    assert {"dialogue", "general", "presence", "report"} <= {record["meta"]["task"] for record in records}
    assert sum("image" not in record for record in records) == 1
    assert len({json.dumps(sorted(record["meta"])) for record in records}) > 3


@pytest.mark.parametrize("split", SPLITS)
def test_datasets_opens_each_file_unchanged(converted: Path, load: Callable[..., Any], split: str) -> None:
    file = converted / f"{split}.json"
    table = load(str(file))["train"]
    assert {"id", "image", "conversations", "meta"} == set(table.column_names)
    assert [without_nothing(row) for row in table] == json.loads(file.read_text())


def test_datasets_opens_the_splits_together(converted: Path, load: Callable[..., Any]) -> None:
    """Its columns and their kinds are those of train.json: val and test may not have others."""
    tables = load({split: str(converted / f"{split}.json") for split in SPLITS})
    for split in SPLITS:
        assert [without_nothing(row) for row in tables[split]] == json.loads(
            (converted / f"{split}.json").read_text()
        )


@pytest.mark.parametrize("name", ["questions_test", "truth_test"])
def test_datasets_opens_questions_and_truth(converted: Path, load: Callable[..., Any], name: str) -> None:
    file = converted / f"{name}.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [without_nothing(row) for row in load(str(file))["train"]] == [*map(without_nothing, lines)]


def llava_faults(record: Any, folder: Path) -> list[str]:
    """What LLaVA's loader would stumble over, or quietly train wrongly on."""
    faults = []
    if not isinstance(record.get("id"), str) or not record["id"]:
        faults.append("id")
    images = record.get("image", [])
    names = [images] if isinstance(images, str) else images
    if "image" in record and not isinstance(images, str):
        faults.append("image is no text")
    faults += [f"no {name}" for name in names if name.startswith("/") or not (folder / name).is_file()]
    said = record["conversations"]
    if not said or [turn["from"] for turn in said] != ["human", "gpt"] * (len(said) // 2):
        faults.append("roles")
    if any(set(turn) != {"from", "value"} or not turn["value"].strip() for turn in said):
        faults.append("turns")
    marks = [turn["value"].count("<image>") for turn in said]
    if marks != [len(names)] + [0] * (len(said) - 1):
        faults.append("<image> marks")
    if names and not said[0]["value"].startswith("<image>\n"):
        faults.append("<image> is not on a line of its own")
    return faults


@pytest.mark.parametrize("split", SPLITS)
def test_records_keep_llavas_rules(converted: Path, split: str) -> None:
    records = json.loads((converted / f"{split}.json").read_text())
    assert isinstance(records, list)
    assert records
    assert [faults for record in records if (faults := llava_faults(record, converted))] == []
    assert len({record["id"] for record in records}) == len(records)


def test_the_rules_can_be_broken(converted: Path) -> None:
    """The check above finds what it is there for."""
    record = json.loads((converted / "test.json").read_text())[0]
    first, answer = record["conversations"]
    broken = [
        {**record, "id": 3},
        {**record, "image": [record["image"]]},
        {**record, "image": "images/none.jpg"},
        {**record, "conversations": [answer, first]},
        {**record, "conversations": [first]},
        {**record, "conversations": [first, {"from": "gpt", "value": " "}]},
        {**record, "conversations": [{**first, "value": "Is it broken?"}, answer]},
        {**record, "conversations": [first, {**answer, "value": "<image>"}]},
        {key: value for key, value in record.items() if key != "image"},
    ]
    assert all(llava_faults(one, converted) for one in broken)
