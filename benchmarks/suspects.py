"""How many planted label errors does `llava-inspect suspects` find? Precision and recall of its list.

Photos are rendered, 5% of their annotations are made wrong (a defect gets another kind, or its box is taken
away; a sound photo gets a box), and the list is compared with what was planted. The number in the list that
counts is the number planted, where precision and recall are one; chance gets the planted share.

    python -m benchmarks.suspects --output runs/bench_suspects
    python -m benchmarks.suspects --output runs/bench_suspects --count 300 max_steps=400
"""

from __future__ import annotations

import argparse
import random
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

from llava.common.files import read_json, write_json
from llava_inspect.__main__ import main as llava_inspect

KINDS = ("broken disc", "missing disc", "flashover", "pollution", "bird nest")


def plant(annotations: Path, share: float, seed: int) -> dict[str, str]:
    """Make the labels of a share of the photos wrong; returns what was done to each, by the photo's name."""
    files = sorted(annotations.glob("*.xml"))
    chance = random.Random(seed)
    planted = {}
    for file in chance.sample(files, round(share * len(files))):
        tree = ElementTree.parse(file)
        root = tree.getroot()
        objects = {item: item.findtext("name", "") for item in root.iter("object")}
        defects = [item for item, name in objects.items() if name in KINDS]
        if not defects:
            (string, *_) = objects
            copied = ElementTree.fromstring(ElementTree.tostring(string))
            root.append(copied)
            planted[file.stem] = f"added {rename(copied, chance.choice(KINDS))}"
        elif chance.random() < 0.5:
            for item in defects:
                root.remove(item)
            planted[file.stem] = f"removed {', '.join(sorted({objects[item] for item in defects}))}"
        else:
            item = chance.choice(defects)
            others = sorted(set(KINDS) - {objects[defect] for defect in defects})
            planted[file.stem] = f"{objects[item]} renamed to {rename(item, chance.choice(others))}"
        tree.write(file)
    return planted


def rename(item: ElementTree.Element, kind: str) -> str:
    """Change the class of an annotated object, and return it."""
    name = item.find("name")
    assert name is not None
    name.text = kind
    return kind


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--share", type=float, default=0.05)
    parser.add_argument("--seed", type=int, default=11)
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="training settings")
    args = parser.parse_intermixed_args()
    scenes, data, planted_file = args.output / "scenes", args.output / "data", args.output / "planted.json"
    if not planted_file.exists():
        command("scenes", "--count", args.count, "--seed", args.seed, "--output", scenes)
        write_json(planted_file, plant(scenes / "annotations", args.share, args.seed))
    if not data.exists():
        splits = ("splits.train=0.9", "splits.val=0.1", "splits.test=0")
        command("convert", "--source", scenes, "--recipe", "insulator", "--output", data, *splits)
    command("suspects", "--data", data, "--output", args.output / "suspects", *args.overrides)
    report(read_json(planted_file), args.output / "suspects" / "suspects.json")


def command(name: str, *arguments: object) -> None:
    if code := llava_inspect([name, *map(str, arguments)]):
        sys.exit(code)


def report(planted: dict[str, str], found: Path) -> None:
    """Print a table: how many planted errors are among the first so many, and how many by chance."""
    ranked = [Path(suspect["photo"]).stem for suspect in read_json(found)["suspects"]]
    wrong = [name in planted for name in ranked]
    total = sum(wrong)
    print(f"\n{len(ranked)} photos in the training data, {total} with a planted error\n")
    print("| first in the list | planted among them | precision | recall | recall by chance |")
    print("|---|---|---|---|---|")
    for listed in (total, 2 * total, 4 * total):
        hits = sum(wrong[:listed])
        print(
            f"| {listed} | {hits} | {hits / listed:.2f} | {hits / total:.2f} | {listed / len(ranked):.2f} |"
        )
    print()
    for rank, name in enumerate(ranked, start=1):
        if name in planted:
            print(f"rank {rank}: {name}, {planted[name]}")


if __name__ == "__main__":
    main()
