"""Parsers of answers. They are conservative: where the words leave a doubt, the answer is unparsed.

An unparsed answer counts as wrong and the fraction of parsed answers stands beside every score, so a rule
that is too strict shows, while one that guesses would flatter a model unnoticed. True answers are parsed by
the same functions. The words are English, save for yes and no: their words in another language come with the
truth. A class name in any language matches as the whole answer.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache

from llava.common.boxes import Box, parse_boxes
from llava.common.errors import InputError
from llava.common.records import report_entries

_UNITS = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"),
    *("eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"),
)
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")

_LEAD_IN = re.compile(r"^(?:(?:so |the )?(?:correct |final )?answer(?: is|\s*:)\s*)")
_YES_NO = re.compile(r"(?<!\w)(yes|no)(?!\w)")
# After a "no" that answers comes the end, punctuation, or the subject of a sentence ("no there is ...").
# Before a noun it is part of the noun ("no doubt", "no defect"): whether "No defect is visible" means
# yes or no depends on the question. "No. 3" is a number.
_ANSWERING_NO = re.compile(
    r"^no(?!\.?\s*[0-9#])(?=\W*$|\s*[^\w\s'\"*]|[\s'\"*]+(?:there|it|this|that|the|they|i|we)\b)"
)
_NEGATION = re.compile(r"(?<!\w)(?:no|not|never|none|without|neither|nor|cannot|\w+n't)(?!\w)")
_NUMBER_WORD = re.compile(
    rf"(?<!\w)(?:({'|'.join(_TENS)})(?:[- ]({'|'.join(_UNITS[1:10])}))?|({'|'.join(_UNITS)}))(?!\w)"
)
_UNCERTAIN_NUMBER = re.compile(
    r"(?<!\w)(?:at least|at most|more than|less than|fewer than|up to|or more|or fewer|half|dozens?|"
    r"hundreds?|thousands?|millions?|not|cannot|\w+n't)(?!\w)"
)


def normalise(text: str) -> str:
    """Fold compatibility forms (NFKC) and case, make typographic apostrophes plain and spaces single."""
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return " ".join(folded.replace("’", "'").replace("‘", "'").split())


def words(text: str) -> list[str]:
    """Return the runs of letters and digits of a normalised text; `_`, `-` and punctuation separate."""
    return re.findall(r"[^\W_]+", normalise(text))


def parse_yes_no(text: str, yes_no_words: tuple[str, str] = ("yes", "no")) -> str | None:
    """Return "yes" or "no" where the answer begins with it (after "The answer is"), None otherwise.

    An answer with both words is None; the same word may be repeated. `yes_no_words` are the words for yes and
    no in the language of the question; an answer in other words is not understood.
    """
    if (normalised_words := (normalise(yes_no_words[0]), normalise(yes_no_words[1]))) != ("yes", "no"):
        return _parse_yes_no_in_words(text, normalised_words)
    plain = _LEAD_IN.sub("", normalise(text).lstrip("\"'*` "))
    plain = plain.lstrip("\"'*` ")
    first = _YES_NO.match(plain)
    if first is None or len({match[1] for match in _YES_NO.finditer(plain)}) > 1:
        return None
    if first[1] == "no" and not _ANSWERING_NO.match(plain):
        return None
    return first[1]


# Synonyms of the words that a recipe writes: Korean has several of equal rank.
_SYNONYMS = {"예": ("네",), "네": ("예",), "아니요": ("아니오", "아뇨"), "아니오": ("아니요", "아뇨")}


def _parse_yes_no_in_words(text: str, yes_no_words: tuple[str, str]) -> str | None:
    """Parse the answer to a question in another language than English.

    After the word for no must come the end or punctuation: as in English it may belong to what follows
    ("нет дефектов", no defects).
    """
    plain = normalise(text).lstrip("\"'*` ")
    yes, no = (
        "|".join(re.escape(form) for form in (word, *_SYNONYMS.get(word, ()))) for word in yes_no_words
    )
    if re.match(rf"(?:{yes})(?!\w)", plain) and not re.search(rf"(?<!\w)(?:{no})(?!\w)", plain):
        return "yes"
    if re.match(rf"(?:{no})\s*(?:$|[^\w\s])", plain) and not re.search(rf"(?<!\w)(?:{yes})(?!\w)", plain):
        return "no"
    return None


def parse_letter(text: str, letters: Sequence[str]) -> str | None:
    """Return the letter of a multiple-choice answer, None where there is none.

    The letter stands alone, or first and set off ("B", "(b)", "B. broken disc", "The answer is B."): "A
    missing disc" begins with an article.
    """
    plain = _LEAD_IN.sub("", normalise(text).lstrip("\"'*` ")).lstrip("\"'*` ")
    match = re.match(r"(?:option )?(?:\(([a-z])\)|([a-z])(?=[\"'*`\s]*(?:$|[.):,])))", plain)
    letter = (match[1] or match[2]).upper() if match else None
    return letter if letter in list(letters) else None


def parse_report(text: str) -> list[dict[str, str]] | None:
    """Return the entries of an answer that is a JSON object or a list of objects, None for anything else.

    A code fence around it is taken off.
    """
    fenced = re.fullmatch(r"\s*```(?:json)?\s*(.*?)\s*```\s*", text, re.DOTALL)
    try:
        return report_entries(fenced[1] if fenced else text)
    except ValueError:
        return None


# Other words for the places of a picture, so that answers in them (a base model's, or those of an earlier
# version) are understood: each row is one place.
_PLACES = (
    ("top", "top centre", "top center", "top middle", "upper middle", "upper centre", "upper center"),
    (
        "bottom",
        "bottom centre",
        "bottom center",
        "bottom middle",
        "lower middle",
        "lower centre",
        "lower center",
    ),
    ("centre", "center", "middle"),
    ("left", "middle left", "centre left", "center left"),
    ("right", "middle right", "centre right", "center right"),
    ("top left", "upper left"),
    ("top right", "upper right"),
    ("bottom left", "lower left"),
    ("bottom right", "lower right"),
)


@lru_cache(maxsize=256)
def _class_pattern(classes: tuple[str, ...]) -> tuple[re.Pattern[str], dict[str, str]]:
    """Return a pattern that finds any class, longest first, and the class of each normalised name."""
    names: dict[str, str] = {}
    for name in classes:
        key = " ".join(words(name))
        if not key:
            raise InputError(f"class {name!r} has no letter or digit to recognise it by")
        if key in names:
            raise InputError(f"classes {names[key]!r} and {name!r} cannot be told apart in an answer")
        names[key] = name
    if {"left", "right"} <= names.keys():  # they are places
        for row in _PLACES:
            for name in [names[word] for word in row if word in names][:1]:
                names |= {word: name for word in row if word not in names}
    longest_first = sorted(names, key=lambda key: (-len(key), key))
    alternatives = "|".join(re.escape(key) for key in longest_first)
    return re.compile(rf"(?<!\w)({alternatives})(?:e?s)?(?!\w)"), names


def parse_class(text: str, classes: Sequence[str]) -> str | None:
    """Return the one class of `classes` that the answer names, or None.

    Case, `_` and `-` do not matter; whole words do, but for a plural ending. Longer names are found first
    ("broken disc" before "disc"). None where no class or more than one is named, and where a sentence
    that names a class holds a negation outside that name ("there is no burn", "A burn? No.").

    Raises:
        InputError: Two classes cannot be told apart.
    """
    pattern, names = _class_pattern(tuple(classes))
    plain = " ".join(words(text))
    if plain in names:
        return names[plain]
    classes_named: set[str] = set()
    # A question mark ends no sentence here: what follows it answers what stands before it.
    for sentence in re.split(r"[.!;\n]+", text):
        # Apostrophes stay ("isn't" is a negation); all else that is no letter or digit becomes a space.
        plain = re.sub(r"[^\w']|_", " ", normalise(sentence))
        plain = " ".join(plain.split())
        named = {names[match[1]] for match in pattern.finditer(plain)}
        if named and _NEGATION.search(pattern.sub(" ", plain)):
            return None
        classes_named |= named
    return classes_named.pop() if len(classes_named) == 1 else None


def parse_count(text: str) -> int | None:
    """Return the one number that the answer gives, in digits or in words up to ninety-nine, or None.

    "none" and "there are no ..." are 0. None for two different numbers, a fraction, a minus sign, an
    ordinal ("3rd"), a bound ("at least 3") or a negation ("not 3").
    """
    plain = normalise(text)
    if _UNCERTAIN_NUMBER.search(plain):
        return None
    numbers: set[int] = set()
    for match in re.finditer(r"[\w.,+/:-]*[0-9][\w.,+/:%-]*", plain):
        digits = match[0].rstrip(".,:")
        number = re.fullmatch(r"([0-9]{1,6})(?:(?:개|곳|건)(?:입니다)?)?", digits)  # Korean counts "3개"
        if number is None:
            return None
        numbers.add(int(number[1]))
    for match in _NUMBER_WORD.finditer(plain):
        tens, unit, small = match.groups()
        tens_value = 10 * (_TENS.index(tens) + 2) if tens else 0
        numbers.add(tens_value + (_UNITS.index(unit or small) if unit or small else 0))
    if re.search(r"(?<!\w)(?:none|there (?:is|are) no)(?!\w)", plain):
        numbers.add(0)
    return numbers.pop() if len(numbers) == 1 else None


def parse_box(text: str) -> Box | None:
    """Return the one box `[x1, y1, x2, y2]` in the answer, in whichever frame it was written, or None.

    None for no box, two different boxes, an empty one, or a number outside 0..1. Corners in the wrong
    order are put right (llava.common.boxes.parse_boxes).
    """
    boxes = set(parse_boxes(unicodedata.normalize("NFKC", text)))
    if len(boxes) != 1:
        return None
    x1, y1, x2, y2 = box = boxes.pop()
    return box if 0 <= x1 < x2 <= 1 and 0 <= y1 < y2 <= 1 else None


def token_f1(answer: str, truth: str) -> float:
    """Return the harmonic mean of the precision and recall of words, counted with repeats.

    As SQuAD's F1, articles kept: 1 for the same words in any order, 0 for none in common.
    """
    given, wanted = words(answer), words(truth)
    if not given or not wanted:
        return float(given == wanted)
    common = sum((Counter(given) & Counter(wanted)).values())
    return 2 * common / (len(given) + len(wanted))


def same_text(answer: str, truth: str) -> bool:
    """Return whether both have the same words in the same order; case and punctuation do not matter."""
    return words(answer) == words(truth)
