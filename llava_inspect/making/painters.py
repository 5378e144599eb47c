"""Lists the methods of making defects. A new one is a row of PAINTERS: what makes its painter.

Each is imported only where it is used.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Sequence
from functools import partial

from data_prep.recipe.schema import Recipe
from data_prep.synthesis.painted import Job, Painter, Photo, Rejected
from llava.common.errors import InputError
from llava.common.masks import Mask
from llava.common.settings import validate_settings
from llava.common.synthetic import Method


def _paste(photos: Sequence[Photo], recipe: Recipe, args: Namespace) -> Painter:
    from data_prep.synthesis.pasting.paste import PastePainter
    from llava_inspect.making.outlines import find_outline

    return PastePainter(photos, find_outline(args.segmenter, args.device))


def _render(photos: Sequence[Photo], recipe: Recipe, args: Namespace) -> Painter:
    from data_prep.synthesis.drawing.render import RenderPainter

    return RenderPainter(recipe)


def _diffuse(photos: Sequence[Photo], recipe: Recipe, args: Namespace) -> Painter:
    import torch

    from llava.painting.diffusion import BlendedDiffusion, DiffusionSettings
    from llava.painting.diffusion_model import load_diffusion
    from llava_inspect.making.diffuse import DiffusePainter
    from llava_inspect.making.outlines import find_outline
    from llava_inspect.making.prompts import JobPrompts
    from llava_inspect.making.regions import DefectRegions, kept_region
    from llava_inspect.making.words import find_asker, find_writer

    if args.keyword_model and not args.language_model and "{keywords}" not in recipe.synthetic.prompt:
        raise InputError(
            "--keyword-model: the prompt has no place for keywords; write {keywords} in it (--prompt or the "
            "recipe's synthetic.prompt), or add --language-model"
        )
    given = {
        "steps": args.steps,
        "strength": args.strength,
        "guidance": args.guidance,
        "negative": args.negative_prompt,
    }
    settings = DiffusionSettings(**{name: value for name, value in given.items() if value is not None})
    model = load_diffusion(args.diffusion_model, args.device, args.dtype and getattr(torch, args.dtype))
    prompts = JobPrompts(recipe, model.tokenizers, find_asker(args), find_writer(args))
    outline = find_outline(args.segmenter, args.device)
    region: Callable[[Job], Mask | Rejected]
    if args.invert:
        region = partial(kept_region, outline=outline)
    else:  # colours tell too little of where a component ends to bound a place
        region = DefectRegions(photos, outline if args.segmenter else None)
    diffusion = BlendedDiffusion(model, settings)
    return DiffusePainter(diffusion, region, prompts, args.batch_size or 1, bool(args.invert))


PAINTERS: dict[Method, Callable[[Sequence[Photo], Recipe, Namespace], Painter]] = {
    "paste": _paste,
    "render": _render,
    "diffuse": _diffuse,
}


def with_prompt(recipe: Recipe, prompt: str | None) -> Recipe:
    """Return a recipe with the prompt that is given, if one is; InputError for one without `{wish}`."""
    if prompt is None:
        return recipe
    settings = recipe.synthetic.model_dump() | {"prompt": prompt}
    return recipe.model_copy(
        update={"synthetic": validate_settings(type(recipe.synthetic), settings, "--prompt")}
    )
