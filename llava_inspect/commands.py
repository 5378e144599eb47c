"""The commands of `llava-inspect`. A new one is a row of COMMANDS: a module with `main(argv) -> int`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module

WHOLE, DATA, TRAINING, ANSWERS, USE, SHIPPED = (
    "In one command",
    "Data",
    "Training",
    "Answers and scores",
    "Use the model",
    "What ships",
)


@dataclass(frozen=True)
class Command:
    """A command: `module.main` gets the `leading` arguments before the user's."""

    name: str
    group: str
    summary: str
    module: str
    leading: tuple[str, ...] = ()

    def run(self, argv: Sequence[str]) -> int:
        """Import the command's module, which is not needed for any other command, and run it."""
        status: int = import_module(self.module).main([*self.leading, *argv])
        return status


def _data(name: str, summary: str) -> Command:
    return Command(name, DATA, summary, "data_prep.__main__", (name,))


COMMANDS = (
    Command("run", WHOLE, "annotated photos -> a model, and how far to trust it", "llava_inspect.run"),
    Command("predict", WHOLE, "ask about photos -> answers.csv and a gallery", "llava_inspect.predict"),
    Command(
        "survey", WHOLE, "a flight's photos -> a register of findings to work through", "llava_inspect.survey"
    ),
    _data("scenes", "render insulator photos with boxes, to try things on"),
    Command("synthesize", DATA, "labelled pictures of rare defects, to train on", "llava_inspect.synthesize"),
    _data("inspect", "look at annotated photos -> one HTML page"),
    _data("convert", "photos and a recipe -> conversation JSON, test questions"),
    _data("check", "what is wrong with LLaVA conversation JSON"),
    Command(
        "train", TRAINING, "fine-tune with LoRA as a config says -> run directory", "llava_inspect.train"
    ),
    Command("fetch", TRAINING, "a Hub model's files, for a machine without a network", "llava_inspect.fetch"),
    Command(
        "suspects",
        TRAINING,
        "training annotations that are likely wrong, worst first",
        "llava_inspect.suspects",
    ),
    Command("curve", TRAINING, "what more photos would bring, with an interval", "llava_inspect.curve"),
    Command("merge", TRAINING, "adapters into their base -> one model folder", "llava_inspect.merge"),
    Command("infer", ANSWERS, "answer a question file", "eval.infer"),
    Command("novelty", ANSWERS, "what training looked like, to tell what was never seen", "eval.novelty"),
    Command("score", ANSWERS, "answers against the truth -> scores.json, report.html", "eval.score"),
    Command(
        "certify", ANSWERS, "sound, defect or ask a person, with a guarantee -> decision.json", "eval.certify"
    ),
    Command("compare", ANSWERS, "a table over several scored runs", "llava_inspect.compare"),
    Command(
        "prelabels", ANSWERS, "a survey's findings -> files of labelling tools", "eval.prelabels.__main__"
    ),
    Command("next", ANSWERS, "which photos of a survey to label next", "eval.next"),
    Command("chat", USE, "talk about a photo in the terminal", "llava.serve.cli"),
    Command("find", USE, "find something in a large photo, and ask about it", "llava.search.__main__"),
    Command("serve", USE, "an HTTP service that OpenAI's clients can ask", "llava.serve.api"),
    Command(
        "oddone", USE, "which unit of an insulator string is unlike its neighbours", "llava.oddone.__main__"
    ),
    Command("web", USE, "a web page to chat, find things and compare", "llava.serve.web"),
    Command("export", USE, "for llama.cpp, transformers or the original LLaVA", "llava_inspect.export"),
    Command(
        "configs", SHIPPED, "list the training configs, or copy one", "llava_inspect.ships", ("configs",)
    ),
    Command("recipes", SHIPPED, "list the recipes, or copy one", "llava_inspect.ships", ("recipes",)),
)
