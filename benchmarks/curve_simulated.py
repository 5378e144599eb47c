"""Does the 90% range of `llava-inspect curve` hold the score at twice the photos? Simulated learning curves.

Each curve is a drawn inverse power law (exponent 0.2 to 1, floor 0 to 0.15, error with the fewest photos 0.3
to 0.5), measured at 50, 100, 200 and 400 photos by trainings that differ among themselves, on a test whose
photos are hard or easy for all of them alike. Prints how often the range holds the score that the same test
measures at 800, how often the score that is true there, and how wide it is on average.

    python -m benchmarks.curve_simulated --curves 100
"""

from __future__ import annotations

import argparse

import numpy as np

from eval.scoring.learning_curve import ScoredParts, make_curve

SIZES = (50, 100, 200, 400)


def simulate(
    generator: np.random.Generator, groups: int, training_noise: float
) -> tuple[ScoredParts, float, float]:
    """Draw a learning curve.

    Args:
        generator: Of the draws.
        groups: Number of independent test photos.
        training_noise: Standard deviation of what trainings differ by.

    Returns:
        What the parts score, and what twice the photos would score: measured on the same test, and truly.
    """
    floor, exponent, first = generator.uniform((0, 0.2, 0.3), (0.15, 1.0, 0.5))
    sizes = np.array([*SIZES, 2 * SIZES[-1]])
    errors = floor + (first - floor) * (sizes / SIZES[0]) ** -exponent
    errors = np.clip(errors + generator.normal(0, training_noise, len(sizes)), 0, 1)
    # the models are wrong about the same photos: a share of the draws is common to all of them
    common = generator.random((groups, 1))
    own = generator.random((groups, len(sizes)))
    drawn = np.where(generator.random((groups, len(sizes))) < 0.6, common, own)
    right = (drawn > errors).astype(np.float64)
    counts = generator.multinomial(groups, np.full(groups, 1 / groups), size=300) / groups
    parts = ScoredParts("presence", "accuracy", groups, right[:, :-1].mean(axis=0), counts @ right[:, :-1])
    return parts, float(right[:, -1].mean()), 1 - float(errors[-1])


def coverage(groups: int, training_noise: float, curves: int) -> tuple[list[float], float, float]:
    """Simulate until so many curves could be continued.

    Returns:
        The shares of them whose range held the measured and the true score, the mean width of the range, and
        the share of all curves that could be continued.
    """
    generator = np.random.default_rng([groups, round(1000 * training_noise)])
    held, widths, drawn = [], [], 0
    while len(held) < curves:
        parts, *scores = simulate(generator, groups, training_noise)
        expected = make_curve(SIZES, parts).expected
        drawn += 1
        if expected is not None:
            held.append([expected.low <= score <= expected.high for score in scores])
            widths.append(expected.high - expected.low)
    return np.mean(held, axis=0).tolist(), float(np.mean(widths)), curves / drawn


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--curves", type=int, default=100, help="simulated for each row")
    curves = parser.parse_args().curves
    print("| test photos | trainings differ by | holds the measured | holds the true | width | could say |")
    print("|---|---|---|---|---|---|")
    for groups in (60, 150, 400):
        for noise in (0.0, 0.01, 0.03):
            (measured, true), width, said = coverage(groups, noise, curves)
            print(f"| {groups} | {noise:.2f} | {measured:.0%} | {true:.0%} | {width:.2f} | {said:.0%} |")


if __name__ == "__main__":
    main()
