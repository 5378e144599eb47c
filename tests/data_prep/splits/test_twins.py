"""Copies are found among many, however they were turned or re-encoded, and nothing else is."""

from io import BytesIO

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter
from PIL.Image import Transpose

from benchmarks.find_twins import make_fingerprints
from data_prep.images.fingerprint import fingerprint
from data_prep.splits.near_codes import CodeIndex
from data_prep.splits.twins import find_twins


def photo(seed: int, size: tuple[int, int] = (480, 360)) -> Image.Image:
    """Blurred noise: structure of all sizes, as photos have."""
    random = np.random.default_rng(seed)
    layers = [
        Image.fromarray(random.integers(0, 256, (n, n, 3), dtype=np.uint8)).resize(size) for n in (6, 30)
    ]
    return Image.blend(*layers, 0.3)


def salted(image: Image.Image) -> Image.Image:
    random = np.random.default_rng(0)
    pixels = np.asarray(image).copy()
    pixels[random.random(pixels.shape[:2]) < 0.01] = 255
    pixels[random.random(pixels.shape[:2]) < 0.01] = 0
    return Image.fromarray(pixels)


def encoded(image: Image.Image) -> Image.Image:
    buffer = BytesIO()
    image.resize((160, 120)).save(buffer, "JPEG", quality=30)
    return Image.open(buffer).convert("RGB")


@pytest.mark.parametrize("turn", [None, *Transpose])
def test_copies_are_found(turn: Transpose | None) -> None:
    image = photo(0)
    copy = image if turn is None else image.transpose(turn)
    images = [photo(1), image, photo(2), salted(copy), photo(3), encoded(copy).filter(ImageFilter.BoxBlur(1))]
    first, second, _ = find_twins([fingerprint(image) for image in images], 20)
    assert set(zip(first.tolist(), second.tolist(), strict=True)) == {(1, 3), (1, 5), (3, 5)}


def test_pieces_in_one_fixture_are_no_copies() -> None:
    """A dark ring on a bright ground, each with defects and grain of its own."""
    y, x = np.mgrid[:128, :128] - 64
    ring = np.where(abs(np.hypot(x, y) - 45) < 8, 60.0, 180.0)
    prints = []
    for seed in range(12):
        random = np.random.default_rng(seed)
        grain = np.asarray(
            Image.fromarray(random.normal(0, 22, (32, 32)).astype(np.float32)).resize((128, 128))
        )
        prints.append(fingerprint(Image.fromarray(np.clip(ring + grain, 0, 255).astype(np.uint8))))
    assert not len(find_twins(prints, 20)[0])


def fixture(random: np.random.Generator) -> Image.Image:
    """A part that lies a little otherwise each time, with a spot of its own."""
    image = Image.new("L", (256, 256), 60)
    draw = ImageDraw.Draw(image)
    draw.ellipse((30, 30, 226, 226), fill=150, outline=220, width=4)
    draw.rectangle((100, 0, 156, 30), fill=200)
    draw.ellipse((90, 90, 166, 166), fill=40)
    draw.line((128, 128, 210, 160), fill=230, width=6)
    shift = tuple(random.integers(-4, 5, 2).tolist())
    image = image.rotate(random.uniform(-4, 4), translate=(shift[0], shift[1]))
    x, y = random.integers(60, 190, 2).tolist()
    ImageDraw.Draw(image).rectangle((x, y, x + 10, y + 14), fill=int(random.integers(255)))
    return image


def test_many_pieces_that_look_alike_are_no_copies() -> None:
    random = np.random.default_rng(0)
    pieces = [fixture(random) for _ in range(60)]
    prints = [fingerprint(image) for image in [*pieces, encoded(pieces[0]), salted(pieces[1].convert("RGB"))]]
    first, second, _ = find_twins(prints, 20)
    pairs = set(zip(first.tolist(), second.tolist(), strict=True))
    assert {(0, 60), (1, 61)} <= pairs, "true copies are still found"
    assert len(pairs) < 20, "of some 250 that correlate as copies do"


def test_a_film_stays_together() -> None:
    sheet = photo(0, (800, 480))
    prints = [fingerprint(sheet.crop((2 * step, 0, 480 + 2 * step, 480))) for step in range(60)]
    first, second, _ = find_twins(prints, 20)
    assert set(zip(range(59), range(1, 60), strict=True)) <= set(
        zip(first.tolist(), second.tolist(), strict=True)
    )


def test_many_copies_of_one_are_not_compared_in_all_pairs() -> None:
    print_ = fingerprint(photo(0))
    first, second, _ = find_twins([print_] * 3000, 20)
    assert len(first) < 2 * 3000 and set(second.tolist()) == set(range(1, 3000))
    assert not len(find_twins([bytes(1024)] * 100_000, 20)[0]), "black frames show nothing"


def test_nearly_all_are_found_among_many() -> None:
    greys, planted = make_fingerprints(4000, seed=1)
    first, second, _ = find_twins([grey.tobytes() for grey in greys], 20)
    found = set(zip(first.tolist(), second.tolist(), strict=True))
    assert len(found & planted) > 0.99 * len(planted) > 300
    assert found <= planted


def test_near_codes_are_all_pairs_within_the_distance() -> None:
    random = np.random.default_rng(0)
    codes = random.random((300, 96)) < 0.5
    codes[150:] = codes[:150] ^ (random.random((150, 96)) < 0.05)
    rows, others, bits = CodeIndex(codes).near(codes, 12)
    distances = (codes[:, None] != codes[None]).sum(axis=2)
    wanted = set(zip(*np.nonzero(distances <= 12), strict=True))
    assert set(zip(rows.tolist(), others.tolist(), strict=True)) == wanted
    assert (bits == distances[rows, others]).all()
