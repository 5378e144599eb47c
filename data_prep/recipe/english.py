"""English of class names: what a name says of a part, and how a sentence says that there is one.

The word lists are short on purpose: they hold what inspection data sets use. A name that they do not know is
told apart by its boxes, or left for the reader of the recipe to put right.
"""

from __future__ import annotations

import re
from typing import Literal

from data_prep.annotations import plain_name

Meaning = Literal["sound", "defect", "part", "unknown"]


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Class names of what nothing is wrong with; a recipe's `sound` unless it says otherwise.
SOUND_NAMES = (
    *("good", "normal", "ok", "okay", "sound", "intact", "healthy", "unbroken", "undamaged", "flawless"),
    *("none", "no defect", "no defects", "no damage", "non defective", "defect free"),
)
_SOUND = _words(
    """
    good normal ok okay sound intact healthy unbroken undamaged flawless perfect fine passed
    """
)
_NOT = _words("no not non without free")

# Adjectives that say that something is wrong. Alone they are no noun: "a corroded part".
_BAD = _words(
    """
    abnormal anomalous bad bent blown broken burned burnt chipped combined contaminated corroded cracked
    crooked cut damaged defective deformed degraded dented detached dirty disconnected displaced eroded
    exposed faulty foreign frayed incomplete loose melted misaligned misplaced missing oxidised oxidized
    peeled pitted polluted poor punctured rough rusted rusty scratched scuffed shattered split squeezed
    stained swollen tilted torn twisted uneven unscrewed warped worn
    """
)
# Some of them are nouns as well, and more often so.
_NOUNS_TOO = frozenset(("cut", "split"))
_DEFECTS = _words(
    """
    abrasion anomaly arc arcing bend bite blister blowhole break breakage bubble buckle bulge burn burr
    chip contamination corrosion crack cracking crazing crease cut damage debonding debris defect
    deformation delamination dent deposit dirt discoloration discolouration dust efflorescence erosion
    explosion failure fault fissure flaking flashover flaw fold folding fouling fracture fray fraying
    gap gouge hole hotspot inclusion leak leakage leaking loss misalignment moss nest nick oxidation
    patch peeling pinhole pit pitting poke pollution pore porosity pothole puncture rip rust scab scale
    scrape scratch scuff short soiling spall spalling spatter split spot spur squeeze stain swap tear
    undercut vegetation void warp wear wrinkle
    """
)
_DEFECTIVE_NAMES = frozenset(("ng", "nok", "not ok", "not good", "no good", "fail", "failed", "reject"))
_PARTS = _words(
    """
    beam bearing blade board bolt bottle bushing cable cap capacitor capsule cell clamp conductor
    connector crossarm damper disc disk fitting flange gear housing insulator joint module nacelle nut
    object panel part pin pipe plate pole product rail resistor rivet rotor screw shaft sheet shell
    sleeper spacer string tile tower transformer transistor tube valve washer weld wheel wire
    """
)

# Nouns without a plural: "Is there corrosion?"
_UNCOUNTED = _words(
    """
    abrasion breakage contamination corrosion damage debris delamination dirt discoloration
    discolouration dust efflorescence erosion flashover glue grease ice leakage loss material matter
    misalignment moisture moss oil oxidation pollution porosity rust scale snow spatter vegetation water
    wear
    """
)
# In -ing, and yet counted: all others ("pitting") are not.
_COUNTED = _words("bearing casing coating fitting housing marking opening ring spring string wing")
_NO_PLURALS = _words("bias bus canvas chassis gas lens series")
_AREAS = _words("left right middle centre center corner half third quarter")
_NO_PARTICIPLES = _words("bed feed led reed seed shed sled speed weed")

_VOWEL_SOUND = re.compile(r"(?!uni|use|usu|one\b|eu|ut[ie])[aeiou]|hour|honest", re.IGNORECASE)
_SPELLED_OUT = re.compile(r"[AEFHILMNORSX][A-Z0-9]*\b")  # "an NG part": the letter is read as "en"


def readable(name: str) -> str:
    """Return a class name as words: `missing_nut`, `MissingNut` and `missing-nut` are all "missing nut".
    Where spaces or underscores divide it, hyphens stay: "rolled-in scale"."""
    text = re.sub(r"(?<=[a-z])(?=[A-Z][a-z])", " ", name.strip())
    text = re.sub(r"(?<=[^\W\d_]{3})(?=\d+$)", " ", text)
    text = re.sub(r"[\s_]+", " ", text).strip()
    if " " not in text:
        text = text.replace("-", " ").strip()
    return " ".join(word if _is_code(word) else word.lower() for word in text.split())


def _is_code(word: str) -> bool:
    """Return whether a word is written in capitals because it is short for something: PCB, X2."""
    return word.isupper() and (1 < len(word) < 4 or any(map(str.isdecimal, word)))


def meaning_of(name: str) -> Meaning:
    """Return what a class name says of what it names."""
    plain = plain_name(readable(name))
    words = plain.split()
    bad = any(_is_bad(word) for word in words)
    if plain in _DEFECTIVE_NAMES:
        return "defect"
    if plain in SOUND_NAMES or (bad and _NOT.intersection(words)) or (not bad and _SOUND.intersection(words)):
        return "sound"
    if any(word.startswith("un") and word[2:] in _BAD for word in words):
        return "sound"
    if bad or words[:1] in (["no"], ["without"]):  # "no nut"
        return "defect"
    return "part" if words and _singular(words[-1]) in _PARTS else "unknown"


def _is_bad(word: str) -> bool:
    return word in _BAD or word in _DEFECTS or _singular(word) in _DEFECTS


def as_noun(word: str) -> str:
    """Return a readable class name as a noun: "corroded part" for `corroded`, "missing nut" for `nut missing`
    and `no nut`, "type 2 crack" for `crack 2`."""
    words = word.split()
    if plain_name(word) in _DEFECTIVE_NAMES:
        return "defective part"
    if words and (words[-1].isdecimal() or (len(words[-1]) == 1 and words[-1].isascii())):
        return " ".join(["type", words[-1].upper(), *(words[:-1] or ["object"])])
    if len(words) > 1 and words[0] in ("no", "without"):
        words = ["missing", *words[1:]]
    if words and all(map(_is_adjective, words)):
        return " ".join([*words, "part"])
    if len(words) > 1 and _is_adjective(words[-1]) and not _is_adjective(words[-2]):
        words = [words[-1], *words[:-1]]
    return " ".join(words)


def _is_adjective(word: str) -> bool:
    word = word.lower()
    if word in _NOUNS_TOO:
        return False
    if word in _BAD or word in ("large", "small", "very", "not") or word.endswith("ly"):
        return True
    return len(word) > 4 and word.endswith("ed") and word not in _NO_PARTICIPLES


def noun_phrase(word: str) -> str:
    """Return how an English sentence says that there is one: "a crack", "an uneven part", "corrosion",
    "scratches"."""
    noun = as_noun(word)
    if not noun.isascii() or not noun or is_plural(noun) or _is_uncounted(noun):
        return noun
    return f"{'an' if _SPELLED_OUT.match(noun) or _VOWEL_SOUND.match(noun) else 'a'} {noun}"


def at_place(place: str) -> str:
    """Return how an English sentence says that something is at a place of the picture: "on the left", "in the
    upper middle", "at the top"."""
    if place in ("left", "right") or _last(place) == "side":
        return f"on the {place}"
    return f"{'in' if _last(place) in _AREAS else 'at'} the {place}"


def is_plural(noun: str) -> bool:
    """Return whether a noun is a plural by its last word."""
    last = _last(noun)
    return _singular(last) != last or last in ("teeth", "people")


def _is_uncounted(noun: str) -> bool:
    last = _last(noun)
    return last in _UNCOUNTED or (last.endswith("ing") and last not in _COUNTED)


def _last(noun: str) -> str:
    return re.split(r"[\s-]", noun.lower())[-1]


def _singular(word: str) -> str:
    """Return the singular of a regular plural; any other word as it is."""
    if len(word) < 4 or not word.endswith("s") or word.endswith(("ss", "us", "is")) or word in _NO_PLURALS:
        return word
    if word.endswith("ies"):
        return f"{word[:-3]}y"
    if word.endswith(("ches", "shes", "sses", "xes")):
        return word[:-2]
    return word[:-1]
