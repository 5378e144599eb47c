"""Questions and answers about a generic scene, and text-only exercises, for the embedded base model."""

from __future__ import annotations

from collections import Counter

import numpy as np

from tiny_base.canvas import COLOURS, CONDITIONS, PLACES, SHAPES
from tiny_base.rows import Row
from tiny_base.scenes import Scene, Thing, place_name

Pair = tuple[str, str, str]  # family, question, answer

# What a condition is called, and how its article reads.
CONDITION_NAMES = {
    "gap": "a gap",
    "broken": "a broken part",
    "odd": "an odd part",
    "stained": "a stained part",
    "dull": "dull parts",
    "tangle": "a tangle of lines",
}
PHRASES = {
    "colour": ("What colour is the {}?", "Which colour does the {} have?", "Name the colour of the {}."),
    "shape": ("What shape is {}?", "Which shape is {}?", "Name the {} shape."),
    "place": ("Where is the {}?", "In which part of the picture is the {}?", "Where do you see the {}?"),
    "count": ("How many {} are there?", "How many {} do you see?", "Count the {}."),
    "presence": ("Is there a {}?", "Do you see a {}?", "Does the picture show a {}?"),
    "any_colour": ("Is there anything {}?", "Do you see anything {}?"),
    "row_presence": ("Is there a row of parts?", "Do you see a row?", "Does the picture show a row?"),
    "row_whole": ("Is the row whole?", "Is the row complete and clean?", "Are all parts of the row fine?"),
    "row_condition": (
        "What is wrong with the row?",
        "What does the row show?",
        "Describe the state of the row.",
    ),
    "row_has": ("Does the row have {}?", "Is there {} in the row?", "Do you see {} in the row?"),
    "row_place": ("Where in the picture is the row not whole?", "Where is the fault of the row?"),
    "row_colour": ("What colour is the row?", "Which colour do the parts of the row have?"),
    "describe": ("Describe the picture.", "What does the picture show?", "What do you see?"),
}


def _pick(rng: np.random.Generator, options: tuple[str, ...] | list[str]) -> str:
    return options[int(rng.integers(len(options)))]


def _ask(rng: np.random.Generator, family: str, *words: str) -> str:
    question = _pick(rng, PHRASES[family]).format(*words)
    if family in ("presence", "row_has", "any_colour", "row_whole", "row_presence") and rng.random() < 0.3:
        return question + " Answer yes or no."
    return question


def _choices(rng: np.random.Generator, question: str, answer: str, others: list[str]) -> tuple[str, str]:
    """The question with three lettered choices, and the right letter."""
    wrong = [others[i] for i in rng.permutation(len(others))[:2]]
    options = [[answer, *wrong][i] for i in rng.permutation(3)]
    listed = " ".join(f"{letter}. {option}" for letter, option in zip("ABC", options, strict=True))
    return f"{question} {listed}", "ABC"[options.index(answer)]


def _about_things(things: list[Thing], rng: np.random.Generator) -> list[Pair]:
    pairs: list[Pair] = []
    shapes, colours = Counter(t.shape for t in things), Counter(t.colour for t in things)
    for thing in things:
        if shapes[thing.shape] == 1:
            question = _ask(rng, "colour", thing.shape)
            if rng.random() < 0.2:
                pairs.append(
                    (
                        "choice",
                        *_choices(rng, question, thing.colour, [c for c in COLOURS if c != thing.colour]),
                    )
                )
            pairs.append(("colour", question, thing.colour))
            pairs.append(("place", _ask(rng, "place", thing.shape), place_name(thing.box)))
        if colours[thing.colour] == 1:
            pairs.append(("shape", _ask(rng, "shape", thing.colour), thing.shape))
    some = things[int(rng.integers(len(things)))]
    there = {(t.colour, t.shape) for t in things}
    pairs.append(("presence", _ask(rng, "presence", f"{some.colour} {some.shape}"), "yes"))
    # The hard negative has a colour and, where it can, a shape that are in the picture, but not together.
    near = [
        (t.colour, s) for t in things for s in (*shapes, _pick(rng, SHAPES)) if (t.colour, s) not in there
    ]
    near = near or [(some.colour, s) for s in SHAPES if s != some.shape]
    wrong = near[int(rng.integers(len(near)))]
    pairs.append(("presence", _ask(rng, "presence", " ".join(wrong)), "no"))
    pairs.append(("presence", _ask(rng, "presence", some.shape), "yes"))
    pairs.append(
        ("presence", _ask(rng, "presence", _pick(rng, [s for s in SHAPES if s not in shapes])), "no")
    )
    pairs.append(("any_colour", _ask(rng, "any_colour", some.colour), "yes"))
    pairs.append(
        ("any_colour", _ask(rng, "any_colour", _pick(rng, [c for c in COLOURS if c not in colours])), "no")
    )
    pairs.append(("count", _ask(rng, "count", "shapes"), str(len(things))))
    pairs.append(
        (
            "count",
            _ask(rng, "count", some.shape + ("es" if some.shape == "cross" else "s")),
            str(shapes[some.shape]),
        )
    )
    listed = sorted(things, key=lambda t: (PLACES.index(place_name(t.box)), t.box))
    described = [f"a {t.colour} {t.shape} at the {place_name(t.box)}" for t in listed]
    text = described[0] if len(described) == 1 else ", ".join(described[:-1]) + " and " + described[-1]
    pairs.append(("describe", _ask(rng, "describe"), text[0].upper() + text[1:] + "."))
    pairs.append(("row_presence", _ask(rng, "row_presence"), "no"))
    return pairs


def _about_row(row: Row, rng: np.random.Generator) -> list[Pair]:
    name = CONDITION_NAMES.get(row.condition or "", "nothing")
    pairs: list[Pair] = [
        ("row_whole", _ask(rng, "row_whole"), "no" if row.condition else "yes"),
        ("row_condition", _ask(rng, "row_condition"), name),
        ("row_colour", _ask(rng, "row_colour"), row.colour),
        ("row_presence", _ask(rng, "row_presence"), "yes"),
        ("presence", _ask(rng, "presence", _pick(rng, SHAPES)), "no"),
        ("any_colour", _ask(rng, "any_colour", row.colour), "yes"),
    ]
    absent = [CONDITION_NAMES[c] for c in CONDITIONS if c != row.condition]
    pairs.append(("row_has", _ask(rng, "row_has", _pick(rng, absent)), "no"))
    if row.condition:
        pairs.append(("row_has", _ask(rng, "row_has", name), "yes"))
        if row.box:
            pairs.append(("row_place", _ask(rng, "row_place"), place_name(row.box)))
    if rng.random() < 0.3:
        question = _ask(rng, "row_condition")
        others = absent if not row.condition else [*absent, "nothing"]
        pairs.append(("choice", *_choices(rng, question, name, others)))
    state = "whole" if row.condition is None else f"with {name} at the {place_name(row.box or (0, 0, 0, 0))}"
    pairs.append(("describe", _ask(rng, "describe"), f"A row of {row.colour} parts, {state}."))
    return pairs


def questions(scene: Scene, rng: np.random.Generator) -> list[Pair]:
    """Every question of the families above that the scene can answer, in random order."""
    pairs = (
        _about_row(scene.row, rng) if scene.row else _about_things(scene.things, rng) if scene.things else []
    )
    if not scene.row and not scene.things:
        pairs = [
            ("describe", _ask(rng, "describe"), "Nothing."),
            ("count", _ask(rng, "count", "shapes"), "0"),
        ]
    return [pairs[i] for i in rng.permutation(len(pairs))]


def repeat_exercise(rng: np.random.Generator, words: list[str]) -> Pair:
    """Text only: give some words back. It teaches every piece of the vocabulary and copying, not facts."""
    chosen = " ".join(_pick(rng, words) for _ in range(int(rng.integers(2, 7))))
    return (
        "repeat",
        _pick(rng, ("Repeat: {}", "Say this again: {}", "Copy these words: {}")).format(chosen),
        chosen,
    )


# Everyday and technical English for the tokenizer and the repeat exercise: pieces to spell with, no facts.
WORDS = """
a about above across after again air all almost along also always an and angle animal another answer any
area arm around as at away back bad band base be because bed been before behind below best better between
big bird bit black blade block blue board body bolt both bottom box branch bridge bright broken brown
brush build building burn but by cable can cap car care casting cause centre chain change check chip
clean clear clip close cloth cloud cold colour component condition contact corner corroded cover crack
crane crazing current cut cycle damage damaged dark day deep defect degree describe detail device
different dirt dirty disc discs door down drone dry dull dust each earth east edge element empty end
engine even every example eye face fall far fast fault few field find fine fire first flash flashover
flat flaw floor for forest found frame fray free fresh from front full gap gear general give glass good
grain grass gray green grey ground group hair half hand hanging hard has have head heat heavy height here
high hole horizon horse hot house how image in inclusion insulator iron is it item joint just keep kind
know land large last leaf left length less letter level light like line liquid list little long look
loose low machine made main make man many map mark mast material may metal middle missing moon more most
motor mountain much name near need nest never new next night no none normal north not note nothing now
number nut of off oil old on one only open or orange other out over paint pair panel paper part patches
people picture piece pin pipe pitted place plain plane plant plate point pole pollution porcelain power
present problem purple question quick railway rain red rest right ring river road rock rod rolled room
roof rope round row rust safe same sand scale scratch scratches screw sea second section see seem seen
shade shadow shape sharp shed shell shine ship short show side sign simple size sky slight small smooth
snow soft soil solid some south spot square stain steel step stone storm straight street string strong
suburb sun surface switch table take tall tear than that the their them then there these they thin thing
this three through tile time tip to together tool top torn tower town track tree triangle truck tube turn
twig two type under unit up upper use valve very view wall warm was water wave way wear weather well west
wet what wheel when where which white whole why wide wind window wing wire with without wood word work
worn wrong year yellow yes yet you zone answer question single several severe severity location action
replace inspect monitor urgent
""".split()  # noqa: SIM905
