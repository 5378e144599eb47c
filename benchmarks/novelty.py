"""Measures whether a novelty bank finds the kind of defect that it has never seen.

    python -m benchmarks.novelty --model-path playground/tiny-llava --training TRAIN --calibration SOUND \
        --test TEST --output novelty.json
    python -m benchmarks.novelty --model-path playground/tiny-llava --neu ../shared/data/neu_det

The folders are those of `llava-inspect scenes`, of three seeds; SOUND is rendered with --defect-share 0. Each
kind in turn is left out of the bank, the bank calibrated on SOUND, and the pictures of TEST are measured:
AUROC of the distance for the kind left out against TEST's sound pictures (and for the other, known kinds),
and the shares called new at p <= 0.05. NEU-DET has no sound pictures: a fourth of the known kinds' pictures
calibrates, a fourth stands for the sound ones; which, is drawn from --seed. --drift tests, with a bank of
all of TRAIN, whether TEST's pictures differ from SOUND's: the sound ones, as they are and changed, and all.
Intervals of 95%: AUROC bootstrapped over pictures, shares Wilson's. A model that was tuned on the kind left
out has seen it: give one that was not.
"""

from __future__ import annotations

import argparse
import re
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageFilter

from eval.scoring.intervals import wilson_interval
from llava.common.files import sha256, write_json
from llava.common.images import open_image
from llava.inference.model_runner import ModelRunner
from llava.model.builder import load_model
from llava.novelty.bank import NoveltyBank
from llava.novelty.build import BATCH, BankSettings, KnownPicture, build_bank
from llava.novelty.drift import drift_test
from llava.novelty.meter import NoveltyMeter
from llava.novelty.pvalue import PValues

LEVEL = 0.05
RESAMPLES = 1000
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Photo:
    path: Path
    kinds: frozenset[str]


@dataclass(frozen=True)
class Row:
    """How one kind that was left out was told from `sound` pictures; intervals are (value, low, high)."""

    kind: str
    pictures: int
    auroc: tuple[float, float, float]
    called_new: tuple[float, float, float]
    sound: int
    false_alarms: tuple[float, float, float]
    known_auroc: tuple[float, float, float] | None
    """Of the kinds that are in the bank; None where all of them are taken for sound."""


def read_scenes(folder: Path) -> list[Photo]:
    """Read a folder of `llava-inspect scenes`."""
    photos = []
    for path in sorted((folder / "annotations").glob("*.xml")):
        names = {name.text or "" for name in ElementTree.parse(path).getroot().iterfind("object/name")}
        photos.append(Photo(folder / "images" / f"{path.stem}.jpg", frozenset(names - {"insulator"})))
    if not photos:
        raise SystemExit(f"{folder}: no scenes; render them with llava-inspect scenes")
    return photos


def read_neu(folder: Path) -> list[Photo]:
    """Read NEU-DET; some of its pictures are there twice, and count once."""
    paths = {sha256(path): path for path in sorted((folder / "IMAGES").glob("*.jpg"))}
    return [Photo(path, frozenset({re.sub(r"_\d+$", "", path.stem)})) for path in paths.values()]


def measure(
    runner: ModelRunner, left_out: str, parts: Sequence[Sequence[Photo]], settings: BankSettings
) -> Row:
    """Make a bank of the first of `parts`, calibrate it on the second, and tell apart those of the third and
    fourth: sound ones (or known ones in their place), and defective ones."""
    training, calibration, sound, defective = parts
    bank = build_bank(
        runner,
        "benchmark",
        [_known(photo) for photo in training if left_out not in photo.kinds],
        [_known(photo) for photo in calibration],
        settings,
    )
    new = _distances(runner, bank, [photo for photo in defective if photo.kinds == {left_out}])
    known = _distances(runner, bank, [photo for photo in defective if left_out not in photo.kinds])
    usual = _distances(runner, bank, sound)
    return Row(
        kind=left_out,
        pictures=len(new),
        auroc=_auroc(new, usual),
        called_new=_share_called_new(bank, new),
        sound=len(usual),
        false_alarms=_share_called_new(bank, usual),
        known_auroc=_auroc(known, usual) if len(known) else None,
    )


def _known(photo: Photo) -> KnownPicture:
    return KnownPicture(photo.path, str(photo.path), sound=True)


def _distances(runner: ModelRunner, bank: NoveltyBank, photos: Sequence[Photo]) -> Array:
    meter = NoveltyMeter(runner, bank)
    distances = []
    for start in range(0, len(photos), BATCH):
        pixels = [runner.processor.pixels(open_image(photo.path)) for photo in photos[start : start + BATCH]]
        runner.see(pixels)
        distances += [novelty.distance for image in pixels if (novelty := meter.of([image]))]
    runner.image_watch = None
    return np.array(distances)


def _share_called_new(bank: NoveltyBank, distances: Array) -> tuple[float, float, float]:
    share = float(np.mean([bank.p_value(float(distance)) <= LEVEL for distance in distances]))
    return (share, *wilson_interval(share, len(distances)))


def _auroc(positive: Array, negative: Array) -> tuple[float, float, float]:
    wins = (positive[:, None] > negative) + 0.5 * (positive[:, None] == negative)
    rng = np.random.default_rng(0)
    drawn = [
        wins[np.ix_(*(rng.integers(count, size=count) for count in wins.shape))].mean()
        for _ in range(RESAMPLES)
    ]
    low, high = np.quantile(drawn, [0.025, 0.975])
    return float(wins.mean()), float(low), float(high)


CHANGES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "as they are": lambda picture: picture,
    "a tenth darker": lambda picture: ImageEnhance.Brightness(picture).enhance(0.9),
    "a third darker": lambda picture: ImageEnhance.Brightness(picture).enhance(0.67),
    "a little out of focus": lambda picture: picture.filter(ImageFilter.GaussianBlur(1.5)),
    "turned by 90 degrees": lambda picture: picture.transpose(Image.Transpose.ROTATE_90),
}


def print_drift(runner: ModelRunner, parts: Sequence[Sequence[Photo]], settings: BankSettings) -> None:
    training, calibration, sound, defective = parts
    pictures = [[_known(photo) for photo in part] for part in (training, calibration)]
    bank = build_bank(runner, "benchmark", *pictures, settings)
    meter = NoveltyMeter(runner, bank)

    def show(name: str, photos: Sequence[Photo], change: Callable[[Image.Image], Image.Image]) -> None:
        projections = []
        for photo in photos:
            pixels = runner.processor.pixels(change(open_image(photo.path)))
            runner.see([pixels])
            projections += [novelty.projection for novelty in [meter.of([pixels])] if novelty]
        names = [str(photo.path) for photo in photos]
        found = drift_test(np.array(projections), names, bank.projections, bank.calibration_groups)
        print(
            f"| {name} | {found.p_value:.3f} | {found.outside:.0%} | {found.energy_distance:.3f} |",
            flush=True,
        )

    print("| pictures | p | outside the usual range | energy distance |\n|---|---|---|---|")
    for name, change in CHANGES.items():
        show(f"sound, {name}", sound, change)
    show("sound and defective", [*sound, *defective], CHANGES["as they are"])


def print_false_alarms(
    runner: ModelRunner, training: Sequence[Photo], folders: Sequence[Path], settings: BankSettings
) -> None:
    """Print how many sound pictures of the other folders are called new where each folder calibrates."""
    sound = [[photo for photo in read_scenes(folder) if not photo.kinds] for folder in folders]
    bank = build_bank(runner, "benchmark", list(map(_known, training)), list(map(_known, sound[0])), settings)
    distances = [_distances(runner, bank, photos) for photos in sound]
    print("| calibrated on | pictures | false alarms among the others |\n|---|---|---|")
    for at, folder in enumerate(folders):
        p_value = PValues(list(distances[at]), [str(number) for number in range(len(distances[at]))])
        others = np.concatenate(distances[:at] + distances[at + 1 :])
        share = float(np.mean([p_value(float(distance)) <= LEVEL for distance in others]))
        low, high = wilson_interval(share, len(others))
        print(f"| {folder} | {len(distances[at])} | {share:.3f} [{low:.3f}, {high:.3f}] |", flush=True)


def print_table(rows: Sequence[Row]) -> None:
    def shown(interval: tuple[float, float, float] | None) -> str:
        if interval is None:
            return ""
        return "{:.2f} [{:.2f}, {:.2f}]".format(*interval)

    print("| left out | pictures | AUROC | called new | false alarms | AUROC of the known kinds |")
    print("|---|---|---|---|---|---|")
    for row in rows:
        figures = (row.auroc, row.called_new, row.false_alarms, row.known_auroc)
        print(f"| {row.kind} | {row.pictures} | " + " | ".join(map(shown, figures)) + " |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model-path", required=True)
    parser.add_argument("--training", type=Path)
    parser.add_argument("--calibration", type=Path)
    parser.add_argument("--test", type=Path)
    parser.add_argument("--neu", type=Path, help="NEU-DET's folder, in place of the three of scenes")
    parser.add_argument("--kinds", nargs="+", help="leave out only these")
    parser.add_argument("--layer", type=int)
    parser.add_argument("--neighbourhood", type=int, default=1)
    parser.add_argument("--vectors", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0, help="of NEU-DET's division")
    parser.add_argument(
        "--sound", nargs="+", type=Path, help="false alarms where each of these calibrates for the others"
    )
    parser.add_argument("--drift", action="store_true", help="the drift test instead")
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()
    settings = BankSettings(args.vectors, args.layer, args.neighbourhood)
    runner = ModelRunner(load_model(args.model_path))
    if args.sound:
        print_false_alarms(runner, read_scenes(args.training), args.sound, settings)
        return
    if args.neu:
        photos = read_neu(args.neu)
    else:
        training, calibration, test = map(read_scenes, (args.training, args.calibration, args.test))
        photos = test
    if args.drift:
        sound = [photo for photo in test if not photo.kinds]
        print_drift(
            runner, [training, calibration, sound, [photo for photo in test if photo.kinds]], settings
        )
        return
    rows = []
    for kind in args.kinds or sorted({kind for photo in photos for kind in photo.kinds}):
        if args.neu:
            known = [photo for photo in photos if kind not in photo.kinds]
            order = np.random.default_rng(args.seed).permutation(len(known))
            first, second = len(known) // 2, 3 * len(known) // 4
            parts = [[known[at] for at in part] for part in np.split(order, [first, second])]
            parts.append([photo for photo in photos if kind in photo.kinds])
        else:
            sound = [photo for photo in test if not photo.kinds]
            parts = [training, calibration, sound, [photo for photo in test if photo.kinds]]
        rows.append(measure(runner, kind, parts, settings))
        print(f"{kind} done", file=sys.stderr)
    print_table(rows)
    if args.output:
        write_json(args.output, [asdict(row) for row in rows])


if __name__ == "__main__":
    main()
