"""Ask a model which unit is damaged: about the numbered strip, and about each doubtful unit."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

from llava.common.errors import InputError
from llava.oddone.picture import crop_of_unit, draw_strip
from llava.oddone.result import OddResult

DOUBTFUL = 3  # units that the model is asked about one by one
STRIP_QUESTION = (
    "This is an insulator string, cut into units with numbers above them. "
    "Which unit is broken or missing? Answer with its number."
)
UNIT_QUESTION = "Is the insulator unit in the middle of this picture broken or missing? Answer yes or no."


@dataclass(frozen=True)
class ModelVerdict:
    """What a model says of a string.

    Attributes:
        index: The unit that it takes for damaged when it sees the numbered strip.
        probability: Its probability among the numbers.
        p_yes: For the units with the highest scores: the probability of yes when it sees each alone.
    """

    index: int
    probability: float
    p_yes: dict[int, float]

    def to_json(self) -> dict[str, Any]:
        return {
            "strip": {"index": self.index, "probability": round(self.probability, 3)},
            "units": [{"index": index, "p_yes": round(value, 3)} for index, value in self.p_yes.items()],
        }


class Asker:
    """A loaded model, and the questions to it."""

    def __init__(self, args: Namespace) -> None:
        """Load the model that the flags of `add_model_flags` name; InputError if it cannot be loaded."""
        from llava.inference.engine import Engine
        from llava.model.builder import load_model

        loaded = load_model(
            args.model_path, args.model_base, device=args.device, load_8bit=args.load_8bit,
            load_4bit=args.load_4bit, conv_mode=args.conv_mode,
        )  # fmt: skip
        self.engine = Engine(loaded)

    def ask(self, result: OddResult) -> ModelVerdict:
        """Ask about the strip of a result that has an odd unit, and about its oddest units.

        Raises:
            InputError: the model does not answer, for instance because a picture does not fit its context.
        """
        ranked = result.ranked()
        numbers = [str(index + 1) for index in sorted(ranked)]
        of_strip, *of_units = self._probabilities(
            [(STRIP_QUESTION, draw_strip(result), numbers)]
            + [(UNIT_QUESTION, crop_of_unit(result, index), ["yes", "no"]) for index in ranked[:DOUBTFUL]]
        )
        number = max(of_strip, key=lambda choice: of_strip[choice])
        p_yes = {index: answer["yes"] for index, answer in zip(ranked, of_units, strict=False)}
        return ModelVerdict(int(number) - 1, of_strip[number], p_yes)

    def _probabilities(
        self, questions: Sequence[tuple[str, Image.Image, list[str]]]
    ) -> list[dict[str, float]]:
        """Return the probability of each choice, for each of the questions (text, picture, choices)."""
        from llava.inference.engine import Request

        results = self.engine.answer(
            [
                Request(place, text, [picture], choices)
                for place, (text, picture, choices) in enumerate(questions)
            ],
            max_new_tokens=1,
        )
        answers = []
        for result in results:
            if result.choices is None:
                raise InputError(f"the model cannot be asked about the string: {result.error}")
            answers.append(dict(result.choices))
        return answers
