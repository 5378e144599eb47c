"""Does `llava-inspect next` choose well, and does the interval of `llava-inspect curve` hold? Quickly.

It measures what benchmarks.next_to_label and benchmarks.curve measure, with the same code, but nothing is
tuned: the learner is a linear probe, logistic regressions (of whether there is a defect, and of its kind) on
what the untouched vision tower of the base makes of a photo. So it is a test of the rule by which photos are
chosen and of the interval around a prediction, with real errors on rendered photos. It is no test of the
whole tool: a model tuned with LoRA is sure of other things, learns at another pace and answers in words.

    python -m benchmarks.linear_probe --output runs/bench_probe
    python -m benchmarks.linear_probe --output runs/bench_probe_try --seeds 2 --pool 400 --runs 2 --photos 100

The first takes some 10 minutes, half of them to render; the second takes one. For each seed a pool is
rendered, and the tower reads it once. The learner of a seed is tested on the whole pool of the next seed. The
runs of the second measurement have photos of their own each: 2n of a pool to train on, and as many test
photos as are asked for of the next one. A killed run goes on with the same command.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks import curve, next_to_label
from benchmarks.curve import predict_scores, render
from benchmarks.next_to_label import FIRST, WAYS, Benchmark, Learned, do_round, do_way, score
from benchmarks.novelty import read_scenes
from benchmarks.units import add_unit, read_units
from eval.scoring.answers import AnswerFile
from eval.survey.findings import Finding
from llava.common.errors import InputError, run_command
from llava.common.files import atomic_path
from llava.common.images import open_image
from llava.common.records import Answer, InputFile, Truth
from llava.common.shipped import EMBEDDED_MODEL, find_shipped
from llava.model.builder import LoadedModel, load_model
from llava_inspect.curve import SHARES

NONE = "none"
KINDS = ("missing disc", "broken disc", "flashover", "pollution", "bird nest")
STRENGTH = 0.03
"""C of the regressions. It and the features were chosen on 400 scenes of seed 1, which are in no pool."""
_BATCH = 32
_EXTREMES = 8  # patches

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Photos:
    """Rendered photos: their names, what the tower makes of them (n, features), and the kinds they show."""

    names: list[str]
    features: Array
    kinds: list[frozenset[str]]

    def only(self, names: Sequence[str]) -> Photos:
        """Return some of them, in the order of their names here."""
        wanted = set(names)
        chosen = [index for index, name in enumerate(self.names) if name in wanted]
        return Photos(
            [self.names[index] for index in chosen],
            self.features[chosen],
            [self.kinds[index] for index in chosen],
        )


class Probe:
    """Two logistic regressions on the features: is there a defect, and which kind ("none" is one, too).

    As the recipe does, it learns no kind from photos of several. Classes weigh alike, however many photos of
    each were chosen: the scores are balanced accuracies.
    """

    def __init__(self, photos: Photos) -> None:
        self._presence = _fit(photos.features, ["yes" if kinds else "no" for kinds in photos.kinds])
        alone = [len(kinds) < 2 for kinds in photos.kinds]
        names = [_kind(kinds) for kinds in photos.kinds if len(kinds) < 2]
        self._kind = _fit(photos.features[alone], names)

    def answer(self, photos: Photos, name: str) -> AnswerFile:
        """Answer the questions of `truths_of`."""
        answers = {
            _question(task, photo): Answer(
                question_id=_question(task, photo), prompt="", text=str(text), answer_id="", model_id=name
            )
            for task, regression in (("presence", self._presence), ("kind", self._kind))
            for photo, text in zip(photos.names, regression.predict(photos.features), strict=True)
        }
        source = InputFile(name=name, sha256="", lines=len(answers))
        return AnswerFile(name, source, answers)

    def survey(self, photos: Photos) -> list[Finding]:
        """Return what a survey would say of the photos; of kinds, the likeliest, among all but none."""
        p_yes = self._presence.predict_proba(photos.features)[:, list(self._presence.classes_).index("yes")]
        classes = [str(name) for name in self._kind.classes_]
        known = [index for index, name in enumerate(classes) if name != NONE]
        of_kinds = self._kind.predict_proba(photos.features)[:, known]
        of_kinds = of_kinds / of_kinds.sum(axis=1, keepdims=True)
        return [
            Finding(
                id=name,
                photo=name,
                photos=[name],
                decision="defect" if p >= 0.5 else "sound",
                p_yes=float(p),
                kind=classes[known[int(kinds.argmax())]],
                kind_probability=float(kinds.max()),
            )
            for name, p, kinds in zip(photos.names, p_yes, of_kinds, strict=True)
        ]


def _fit(features: Array, classes: Sequence[str]) -> Pipeline:
    if len(set(classes)) < 2:
        raise InputError(f"{len(classes)} photos of one class to learn from: raise --each and --photos")
    regression = LogisticRegression(C=STRENGTH, max_iter=500, class_weight="balanced")
    return make_pipeline(StandardScaler(), regression).fit(features, classes)


def _kind(kinds: frozenset[str]) -> str:
    return next(iter(kinds), NONE)


def _question(task: str, photo: str) -> str:
    return f"{task}/{photo}"


def truths_of(photos: Photos) -> list[Truth]:
    """Return the questions that the recipe asks, as truths: presence of all photos, kind of those of one."""
    presence = [
        Truth(
            question_id=_question("presence", name),
            answer="yes" if kinds else "no",
            task="presence",
            type="yesno",
            group=name,
        )
        for name, kinds in zip(photos.names, photos.kinds, strict=True)
    ]
    kind = [
        Truth(
            question_id=_question("kind", name),
            answer=_kind(kinds),
            task="kind",
            type="class",
            group=name,
            classes=[*KINDS, NONE],
        )
        for name, kinds in zip(photos.names, photos.kinds, strict=True)
        if len(kinds) < 2
    ]
    return presence + kind


# --- photos and their features -----------------------------------------------------------------------


def read_pools(output: Path, seeds: int, count: int) -> list[Photos]:
    """Render the pools and have the tower read them, unless that is done."""
    model = None
    pools = []
    for seed in range(seeds):
        folder, file = output / f"pool{seed}", output / f"pool{seed}.npy"
        render(folder, count, 1000 + seed)
        scenes = read_scenes(folder)
        if len(scenes) != count:
            raise InputError(f"{folder} holds {len(scenes)} photos, not {count}: name another --output")
        if not file.exists():
            model = model or load_model(find_shipped(EMBEDDED_MODEL), device="cpu")
            began = time.monotonic()
            features = read_features(model, [photo.path for photo in scenes])
            with atomic_path(file) as temporary, temporary.open("wb") as opened:
                np.save(opened, features)
            print(f"{file}: {count / (time.monotonic() - began):.0f} photos/s", flush=True)
        names = [photo.path.name for photo in scenes]
        pools.append(Photos(names, np.load(file), [photo.kinds for photo in scenes]))
    return pools


@torch.inference_mode()
def read_features(model: LoadedModel, paths: Sequence[Path]) -> Array:
    """Return what the tower makes of photos, at the layer that LLaVA reads (n, 4 * width).

    Of each channel these are the class token's value, the mean over the patches, and the means over its eight
    highest and its eight lowest patches: a defect is small.
    """
    rows = []
    for start in range(0, len(paths), _BATCH):
        pixels = [model.processor.pixels(open_image(path)).patches for path in paths[start : start + _BATCH]]
        seen = model.model.model.vision_tower(torch.cat(pixels), output_hidden_states=True)
        layer = seen.hidden_states[model.model.config.vision_feature_layer].float().numpy()
        patches = np.sort(layer[:, 1:], axis=1)
        parts = (patches, patches[:, -_EXTREMES:], patches[:, :_EXTREMES])
        rows.append(np.hstack([layer[:, 0], *(part.mean(axis=1) for part in parts)]))
    return np.concatenate(rows)


# --- the two measurements ----------------------------------------------------------------------------


def learn(
    pools: Sequence[Photos],
    bench: Benchmark,
    seed: int,
    way: str,
    number: int,
    labelled: Sequence[str],
    surveyed: bool,
) -> Learned:
    """Fit a probe, test it on the next pool, and survey its own; with `pools` bound, a `Learn`."""
    pool, test = pools[seed], pools[(seed + 1) % len(pools)]
    probe = Probe(pool.only(labelled))
    scores = score(probe.answer(test, way), truths_of(test))
    return Learned(f"pool {test.names[0]}", scores, probe.survey(pool) if surveyed else [])


def measure_choice(bench: Benchmark, pools: Sequence[Photos]) -> None:
    """Compare the ways of choosing, as benchmarks.next_to_label does."""
    fit = partial(learn, pools)
    seeds = range(len(pools))
    for seed in seeds:
        do_round(bench, fit, seed, FIRST, 0, bench.order(seed)[: bench.each])
    for seed, way in product(seeds, WAYS):
        do_way(bench, fit, seed, way)
    next_to_label.report(bench, seeds)


def measure_interval(
    bench: Benchmark, pools: Sequence[Photos], runs: int, photos: int, test_photos: int
) -> None:
    """Count how often the interval holds the score at twice the photos, as benchmarks.curve does."""
    settings = {"pool": bench.pool, "seeds": len(pools), "photos": photos, "test_photos": test_photos}
    file = bench.output / "runs.jsonl"
    done = read_units(file, curve.Run, settings)
    sizes = [photos // share for share in SHARES] + [2 * photos]
    for number in sorted(set(range(runs)) - {run.number for run in done}):
        began = time.monotonic()
        turn, seed = divmod(number, len(pools))
        tested = (seed + 1) % len(pools)
        order = bench.order(seed)[turn * 2 * photos :]
        test = pools[tested].only(bench.order(tested)[turn * test_photos : (turn + 1) * test_photos])
        files = [Probe(pools[seed].only(order[:size])).answer(test, str(size)) for size in sizes]
        scores = predict_scores(sizes, truths_of(test), files)
        seconds = round(time.monotonic() - began, 1)
        run = curve.Run(settings=settings, seconds=seconds, number=number, photos=sizes, scores=scores)
        add_unit(file, done, run)
    curve.report(done, bench.output / "curve.json")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--pool", type=int, default=2000, help="photos to choose from")
    parser.add_argument("--each", type=int, default=50, help="photos labelled first, and in each round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--runs", type=int, default=20, help="of the second measurement")
    parser.add_argument("--photos", type=int, default=250, help="n: the interval is of the score at 2n")
    parser.add_argument("--test-photos", type=int, default=200, help="of a run of the second measurement")
    args = parser.parse_args()
    if args.seeds < 2:
        raise InputError(f"--seeds {args.seeds}: 2 or more, as each is tested on the pool of the next")
    if args.each * (args.rounds + 1) > args.pool:
        raise InputError(f"--pool {args.pool}: too few for {args.each} first and in {args.rounds} rounds")
    turns = -(-args.runs // args.seeds)
    if turns * max(2 * args.photos, args.test_photos) > args.pool:
        raise InputError(
            f"--pool {args.pool}: too few for {turns} runs of {2 * args.photos} photos and "
            f"{args.test_photos} to test on; lower --runs or --photos, or raise --seeds"
        )
    pools = read_pools(args.output, args.seeds, args.pool)
    bench = Benchmark(args.output, args.pool, args.pool, args.each, args.rounds, [])
    measure_choice(bench, pools)
    measure_interval(bench, pools, args.runs, args.photos, args.test_photos)


if __name__ == "__main__":
    run_command(main)
