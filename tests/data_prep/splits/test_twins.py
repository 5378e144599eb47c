"""Copies are found among many, however they were turned or re-encoded, and nothing else is."""

from io import BytesIO

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageFilter
from PIL.Image import Transpose

from benchmarks.find_twins import make_fingerprints
from data_prep.images.fingerprint import fingerprint
from data_prep.splits import twins
from data_prep.splits.joined import Joined
from data_prep.splits.near_codes import CodeIndex, pack
from data_prep.splits.twins import find_twins
from data_prep.union_find import UnionFind


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


def still_film(frames: int) -> list[bytes]:
    """Fingerprints of one scene with the noise of a sensor, so that hashes differ in a few bits."""
    random = np.random.default_rng(0)
    scene = np.frombuffer(fingerprint(photo(0)), np.uint8).reshape(32, 32)
    noise = random.normal(0, 0.5, (frames, 32, 32)).astype(np.float32)
    return [grey.tobytes() for grey in np.clip(scene + noise, 0, 255).astype(np.uint8)]


def test_a_still_film_takes_few_pairs() -> None:
    prints = still_film(2000)
    first, second, bits = find_twins(prints, 20)
    assert set(groups_of(first, second, len(prints))) == {0}
    assert bits.max() > 0 and len(first) < 15 * len(prints)


def test_copies_on_another_side_are_all_found() -> None:
    """Each made picture that is a copy of a held-out one is told, however many real ones are alike."""
    prints = still_film(400)
    sides = np.arange(400) % 100 == 7
    first, second, _ = find_twins(prints, 20, sides.astype(np.int64))
    across = sides[first] != sides[second]
    assert set(first[across]) | set(second[across]) >= set(np.flatnonzero(sides))


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
    distances = (codes[:, None] != codes[None]).sum(axis=2)
    near = list(CodeIndex(pack(codes), 96).near(pack(codes), 12))
    rows, others, bits = (np.concatenate(column) for column in zip(*near, strict=True))
    wanted = set(zip(*np.nonzero(np.triu(distances <= 12, 1)), strict=True))
    assert set(zip(rows.tolist(), others.tolist(), strict=True)) == wanted
    assert (bits == distances[rows, others]).all()


def film_and_fixtures(seed: int) -> list[bytes]:
    """Fingerprints in random order: photos with some turned copies, a film, pieces in two fixtures with
    copies of some of them, black frames, and copies of one."""
    random = np.random.default_rng(seed)
    greys, _ = make_fingerprints(40, seed)
    sheet = photo(seed, (400, 256))
    film = [np.frombuffer(fingerprint(sheet.crop((x, 0, x + 256, 256))), np.uint8) for x in range(60)]
    film = [frame.reshape(32, 32) for frame in film]
    pieces = [greys[number // 40] + random.normal(0, 3, (32, 32)) for number in range(80)]
    again = [np.rot90(piece + random.normal(0, 0.4, (32, 32)), turn) for turn, piece in enumerate(pieces[:8])]
    all_greys = [*greys, *film, *pieces, *again, *[greys[3]] * 12]
    order = random.permutation(len(all_greys)) if seed % 2 else range(len(all_greys))
    return [np.clip(all_greys[place], 0, 255).astype(np.uint8).tobytes() for place in order]


def all_pairs(prints: list[bytes]) -> tuple[np.ndarray, np.ndarray]:
    """All pairs that the definition of a copy makes, without any search."""
    images, words = twins._shown_hashes(prints)
    first, second = (images[place] for place in np.triu_indices(len(images), 1))
    parts = []
    for turn in range(8):
        turned = pack(twins._hashes(twins._turned(twins._greys(prints, images), turn)))
        for one, two in ((first, second), (second, first)):
            place = np.searchsorted(images, one), np.searchsorted(images, two)
            bits = np.bitwise_count(words[place[0]] ^ turned[place[1]]).sum(axis=1)
            one, two = one[bits <= 20], two[bits <= 20]
            alike, difference = twins._compare(prints, one, two, turn)
            low, high = np.minimum(one, two), np.maximum(one, two)
            parts.append(
                twins._Pairs(low[alike], high[alike], bits[bits <= 20][alike].astype(int), difference[alike])
            )
    found = twins._together(parts)
    sets, most = twins._sets_of_pieces(prints, images, found)
    kept = found.difference <= np.append(most, np.inf)[sets[found.first]]
    return found.first[kept], found.second[kept]


def groups_of(first: np.ndarray, second: np.ndarray, count: int) -> list[int]:
    joined = Joined(count)
    joined.union(first, second)
    return joined.find(np.arange(count)).tolist()


@pytest.mark.parametrize("seed", range(4))
def test_groups_are_those_of_all_pairs(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """With and without leaving out pairs of images that are joined already."""
    prints = film_and_fixtures(seed)
    first, second = all_pairs(prints)
    wanted = groups_of(first, second, len(prints))
    assert 50 < len(set(wanted)) < len(prints) - 20
    assert groups_of(*find_twins(prints, 20)[:2], len(prints)) == wanted
    monkeypatch.setattr(twins, "ALL_PAIRS", 4)
    few = find_twins(prints, 20)
    assert groups_of(*few[:2], len(prints)) == wanted
    assert len(few[0]) < 0.7 * len(first)


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), max_size=40))
def test_sets_are_those_of_one_pair_after_another(pairs: list[tuple[int, int]]) -> None:
    plain, joined = UnionFind(31), Joined(31)
    for first, second in pairs:
        plain.union(first, second)
    half = len(pairs) // 2
    for part in (pairs[:half], pairs[half:]):
        columns = np.array(part, dtype=np.int64).reshape(-1, 2)
        joined.union(columns[:, 0], columns[:, 1])
    names = [plain.find(number) for number in range(31)]
    assert joined.find(np.arange(31)).tolist() == names
    assert joined.sizes(np.arange(31)).tolist() == [names.count(name) for name in names]
