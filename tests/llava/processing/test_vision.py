"""Each family's pixels and token counts are those of transformers' own processors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers import LlavaNextConfig, LlavaNextProcessor, LlavaOnevisionConfig, LlavaOnevisionProcessor

from llava.common.errors import InputError
from llava.model.folder import open_model_folder
from llava.processing.vision import AnyresVisionProcessor, VisionProcessor, make_vision_processor
from tests.support.family_models import FAMILIES, family_config, family_image_processor


class OnevisionProcessor(LlavaOnevisionProcessor):
    """transformers' own without a video processor, which would need torchvision."""

    def check_argument_for_proper_class(self, argument_name: str, argument: Any) -> Any:
        return type(argument)


SHAPES = [(90, 20), (20, 90), (40, 40), (5, 4), (64, 48), (300, 290), (200, 3)]  # (width, height)


def noise(width: int, height: int) -> Image.Image:
    values = np.random.default_rng(width).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values)


def family_of(family: str) -> tuple[Any, Any, VisionProcessor]:
    config = family_config(family)
    prepare = family_image_processor(config)
    return config, prepare, make_vision_processor(config, prepare)


@pytest.fixture(scope="module", params=["llava_next-llama", "llava_onevision-qwen2"])
def anyres(request: pytest.FixtureRequest, tiny_model_dir: Any) -> tuple[Any, Any]:
    """(our vision processor, transformers' whole processor) of one family."""
    config, prepare, ours = family_of(request.param)
    tokenizer = open_model_folder(tiny_model_dir).tokenizer
    if config.model_type == "llava_next":
        return ours, LlavaNextProcessor(
            prepare, tokenizer, patch_size=4, vision_feature_select_strategy="default",
            num_additional_image_tokens=1,
        )  # fmt: skip
    return ours, OnevisionProcessor(
        prepare, tokenizer, num_image_tokens=9, vision_feature_select_strategy="full",
        vision_aspect_ratio="anyres_max_2",
    )  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES)
def test_one_image(anyres: tuple[AnyresVisionProcessor, Any], shape: tuple[int, int]) -> None:
    ours, theirs = anyres
    image = noise(*shape)
    expected = theirs(images=image, text="<image>", return_tensors="pt")
    made = ours.pixels(image)
    assert torch.equal(made.patches, expected["pixel_values"][0]) and made.patches.dtype == torch.float32
    assert made.size == tuple(expected["image_sizes"][0].tolist()) == shape[::-1]
    image_token = theirs.tokenizer.convert_tokens_to_ids("<image>")
    assert ours.token_counts([made.size]) == [int((expected["input_ids"] == image_token).sum())]


def test_several_images(anyres: tuple[AnyresVisionProcessor, Any]) -> None:
    """OneVision reads each of several as one square, LLaVA-1.6 with its tiles."""
    ours, theirs = anyres
    images = [noise(*shape) for shape in SHAPES]
    onevision = isinstance(theirs, OnevisionProcessor)
    text = "<image>" * len(images)
    expected = theirs(images=[images] if onevision else images, text=[text], return_tensors="pt")
    made = [ours.pixels(image, alone=False) for image in images]
    for one, padded in zip(made, expected["pixel_values"], strict=True):
        count = len(one.patches)
        assert (count == 1) == onevision
        assert torch.allclose(one.patches, padded[:count], rtol=0, atol=1e-6) and not padded[count:].any()
    image_token = theirs.tokenizer.convert_tokens_to_ids("<image>")
    counts = ours.token_counts([one.size for one in made])
    assert sum(counts) == int((expected["input_ids"] == image_token).sum())


@pytest.fixture(scope="module")
def published(tiny_model_dir: Any) -> list[tuple[VisionProcessor, Any]]:
    """LLaVA-1.6's and OneVision's published sizes: (our pictures, transformers' whole processor)."""
    tokenizer, made = open_model_folder(tiny_model_dir).tokenizer, []
    for config, kind, options in (
        (LlavaNextConfig(), LlavaNextProcessor, {"patch_size": 14, "num_additional_image_tokens": 1}),
        (LlavaOnevisionConfig(), OnevisionProcessor, {"num_image_tokens": 729}),
    ):
        prepare = family_image_processor(config)
        strategy = config.vision_feature_select_strategy
        theirs = kind(prepare, tokenizer, vision_feature_select_strategy=strategy, **options)
        made.append((make_vision_processor(config, prepare), theirs))
    return made


@settings(max_examples=200)
@given(width=st.integers(1, 5000), height=st.integers(1, 5000))
def test_token_counts_of_the_published_models(
    published: list[tuple[VisionProcessor, Any]], width: int, height: int
) -> None:
    for ours, theirs in published:
        side = ours.square_processor.size[0]
        assert ours.token_counts([(height, width)])[0] == (
            theirs._get_number_of_features(height, width, side, side)
            - (theirs.vision_feature_select_strategy == "default")
        )


def test_what_the_docstring_says_of_the_published_models(
    published: list[tuple[VisionProcessor, Any]],
) -> None:
    (six, _), (one, _) = published
    shapes = [(h, w) for h in (100, 336, 672, 1000, 1344, 4000) for w in (100, 336, 672, 1000, 1344, 4000)]
    assert max(six.token_counts([shape])[0] for shape in shapes) == 2928
    assert one.token_counts([(100, 200), (50, 50)]) == [730, 730]
    assert 7200 < max(one.token_counts([shape])[0] for shape in shapes) < 729 + 8100


def test_a_square_is_the_same_to_every_family_when_not_alone() -> None:
    _, _, ours = family_of("llava-llama")
    image = noise(50, 20)
    assert ours.token_counts([(1, 2), (3, 4)]) == [9, 9]
    assert ours.canvas(image).size == (12, 12)
    assert torch.equal(ours.pixels(ours.canvas(image)).patches, ours.pixels(image).patches)
    assert set(ours.inputs([ours.pixels(image)])) == {"pixel_values"} and ours.inputs([]) == {}


@pytest.mark.parametrize("family", FAMILIES[1:])
def test_an_image_processor_of_another_model_is_refused(family: str) -> None:
    config = family_config(family)
    with pytest.raises(InputError, match="image_grid_pinpoints"):
        make_vision_processor(config, family_image_processor(family_config("llava-llama")))
    with pytest.raises(InputError, match=r"makes \(24, 24\) pixels, the model takes \(12, 12\)"):
        make_vision_processor(config, family_image_processor(family_config(family, side=24)))
    prepare = family_image_processor(config)
    prepare.image_grid_pinpoints = [[24, 24]]
    with pytest.raises(InputError, match="different image_grid_pinpoints"):
        make_vision_processor(config, prepare)


def test_images_of_a_batch_keep_their_conversations() -> None:
    """OneVision gets which images are alone; one that remains of several is not alone."""
    _, _, ours = family_of("llava_onevision-qwen2")
    assert isinstance(ours, AnyresVisionProcessor)
    alone, one_of = ours.pixels(noise(30, 10)), ours.pixels(noise(30, 10), alone=False)
    given = ours.inputs([alone, one_of, one_of, alone, alone, one_of])
    assert given["batch_num_images"] == [1, 2, 1, 1, 2]
    assert len(given["pixel_values"]) == sum(len(p.patches) for p in [alone] * 3 + [one_of] * 3)
    assert given["image_sizes"] == [(10, 30)] * 6
