"""Things are cut out by SAM, from clicks and boxes, and by GrabCut where there is none."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch.nn import functional

from llava.common.errors import InputError
from llava.common.grabcut import grabcut
from llava.common.masks import Pixels, clean_mask
from llava.painting.sam import MEAN, STD, Sam, SamView, load_sam, prepare, shown_size
from llava.painting.segment import find_segmenter
from llava.painting.views import Click
from tests.support.tiny_sam import SIDE

SIZE = (45, 70)


@pytest.fixture(scope="module")
def pixels() -> Pixels:
    noise = np.random.default_rng(1).integers(0, 256, (6, 9, 3), np.uint8)
    return np.asarray(Image.fromarray(noise).resize(SIZE[::-1]))


@pytest.fixture
def view(model_of_sam: Sam, pixels: Pixels) -> SamView:
    return model_of_sam.look(pixels)


def test_each_prompt_gives_its_own_mask_of_the_pictures_size(view: SamView) -> None:
    segments = view.at_clicks([[Click(10, 10)], [Click(60, 40), Click(5, 5, False)], [Click(35, 20)]])
    assert [segment.mask.shape for segment in segments] == [SIZE] * 3
    assert len({segment.iou for segment in segments}) == 3
    assert any(0 < segment.mask.mean() < 1 for segment in segments)


def test_many_prompts_are_as_one_by_one(view: SamView) -> None:
    prompts = [[Click(10, 10)], [Click(60, 40), Click(5, 5, False)], [Click(35, 20)]]
    boxes = [(3.0, 4.0, 30.0, 40.0), (20.0, 1.0, 69.0, 30.0)]
    together = view.at_clicks(prompts) + view.in_boxes(boxes)
    alone = [view.at_clicks([prompt])[0] for prompt in prompts] + [view.in_boxes([box])[0] for box in boxes]
    for one, other in zip(together, alone, strict=True):
        assert one.iou == pytest.approx(other.iou, abs=1e-3)  # random weights amplify rounding
        assert (one.mask != other.mask).mean() < 0.01
    assert view.at_clicks([]) == view.in_boxes([]) == []


def test_the_candidate_that_sam_expects_most_of_is_taken(view: SamView) -> None:
    found = view.ask_boxes([(3, 4, 30, 40)])
    (segment,) = view.in_boxes([(3, 4, 30, 40)])
    assert found.ious.shape == (1, 3)
    assert segment.iou == found.ious.max()
    assert (segment.mask == view.enlarge(found.logits[0, found.ious[0].argmax()])).all()


def test_a_picture_is_encoded_once(
    model_of_sam: Sam, pixels: Pixels, monkeypatch: pytest.MonkeyPatch
) -> None:
    sam = model_of_sam
    encoded = []
    inner = sam._model.get_image_embeddings
    monkeypatch.setattr(
        sam._model, "get_image_embeddings", lambda values: encoded.append(values.shape) or inner(values)
    )
    view = sam.look(pixels)
    view.in_boxes([(3, 4, 30, 40)])
    view.at_clicks([[Click(3, 4)]])
    assert encoded == [(1, 3, SIDE, SIDE)]


@pytest.mark.parametrize("size", [(45, 70), (70, 45), (64, 64), (200, 31)])
def test_sam_sees_and_answers_as_with_transformers_processor(sam: Sam, size: tuple[int, int]) -> None:
    module = pytest.importorskip("transformers.models.sam.image_processing_pil_sam")
    processor = module.SamImageProcessorPil(
        size={"longest_edge": SIDE}, pad_size={"height": SIDE, "width": SIDE}
    )
    pixels = np.random.default_rng(2).integers(0, 256, (*size, 3), np.uint8)
    theirs = processor(Image.fromarray(pixels), return_tensors="pt")
    shown = shown_size(size, SIDE)
    assert shown == tuple(theirs["reshaped_input_sizes"][0])
    torch.testing.assert_close(prepare(pixels, shown, SIDE), theirs["pixel_values"][0])
    point, box = torch.tensor([[[[9.0, 20.0]]]]), torch.tensor([[[2.0, 3.0, 25.0, 30.0]]])
    scale = torch.tensor([shown[1] / size[1], shown[0] / size[0]])
    view = sam.look(pixels)
    for ours, prompt in (
        (view.at_clicks([[Click(9, 20)]]), {"input_points": point * scale}),
        (view.in_boxes([(2, 3, 25, 30)]), {"input_boxes": box * scale.repeat(2)}),
    ):
        with torch.inference_mode():
            output = sam._model(pixel_values=theirs["pixel_values"], **prompt)
        masks = processor.post_process_masks(
            output.pred_masks, theirs["original_sizes"], theirs["reshaped_input_sizes"]
        )[0][0]
        best = int(output.iou_scores[0, 0].argmax())
        assert (ours[0].mask != clean_mask(masks[best].numpy())).mean() < 0.005


@pytest.mark.parametrize("size", [(45, 70), (70, 45), (64, 64), (200, 31)])
def test_sam2_sees_the_whole_picture_as_a_square(sam2: Sam, size: tuple[int, int]) -> None:
    pixels = np.random.default_rng(2).integers(0, 256, (*size, 3), np.uint8)
    square = np.asarray(Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.BILINEAR), np.float32)
    values = torch.from_numpy((square / 255 - MEAN) / STD).float().permute(2, 0, 1)[None]
    scale = torch.tensor([SIDE / size[1], SIDE / size[0]])
    view = sam2.look(pixels)
    for ours, prompt in (
        (view.at_clicks([[Click(9, 20)]]), {"input_points": torch.tensor([[[[9.0, 20.0]]]]) * scale}),
        (
            view.in_boxes([(2, 3, 25, 30)]),
            {"input_boxes": torch.tensor([[[2.0, 3, 25, 30]]]) * scale.repeat(2)},
        ),
    ):
        with torch.inference_mode():
            output = sam2._model(pixel_values=values, **prompt)
        own = functional.interpolate(output.pred_masks[0], size, mode="bilinear", align_corners=False)
        best = int(output.iou_scores[0, 0].argmax())
        assert ours[0].iou == pytest.approx(float(output.iou_scores.max()), abs=1e-3)
        assert (ours[0].mask != clean_mask((own[0, best] > 0).numpy())).mean() < 0.005


def test_sam2s_folders_of_video_models_are_read(sam2_folder: Path, pixels: Pixels, tmp_path: Path) -> None:
    config = json.loads((sam2_folder / "config.json").read_text())
    video = config | {"model_type": "sam2_video", "architectures": ["Sam2VideoModel"], "num_maskmem": 7}
    (tmp_path / "config.json").write_text(json.dumps(video))
    tensors = load_file(sam2_folder / "model.safetensors") | {"memory_attention.x.weight": torch.zeros(3)}
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    box = (3.0, 4.0, 30.0, 40.0)
    (video_segment,) = find_segmenter(tmp_path).look(pixels).in_boxes([box])
    (segment,) = find_segmenter(sam2_folder).look(pixels).in_boxes([box])
    assert video_segment.iou == pytest.approx(segment.iou, abs=1e-3)
    assert (video_segment.mask != segment.mask).mean() < 0.01


def test_clicks_and_boxes_outside_the_picture_are_refused(view: SamView, pixels: Pixels) -> None:
    for bad in (Click(71, 3), Click(3, -1), Click(float("nan"), 3)):
        with pytest.raises(InputError, match="outside the 70 x 45 picture"):
            view.at_clicks([[Click(3, 3), bad]])
    with pytest.raises(InputError, match="click on it at least once"):
        view.at_clicks([[Click(3, 3, False)]])
    for any_view in (view, find_segmenter(None).look(pixels)):
        for box in ((80, 3, 90, 9), (5, 5, 5, 9), (0, 0, float("inf"), 9)):
            with pytest.raises(InputError, match="nothing of the 70 x 45 picture"):
                any_view.in_boxes([box])


def test_grabcut_without_weights(pixels: Pixels) -> None:
    view = find_segmenter(None).look(pixels)
    (segment,) = view.in_boxes([(10, 10, 50, 40)])
    assert segment.iou is None
    assert (segment.mask == grabcut(pixels, (10, 10, 50, 40))).all()
    with pytest.raises(InputError, match="name a folder of SAM"):
        view.at_clicks([[Click(3, 4)]])


def test_what_is_no_sam_is_one_line(sam_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such model folder"):
        find_segmenter(tmp_path / "absent")
    with pytest.raises(InputError, match=r"no config\.json"):
        find_segmenter(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "llava"}')
    with pytest.raises(InputError, match="model_type llava is no SAM"):
        find_segmenter(tmp_path)
    (tmp_path / "config.json").write_bytes((sam_folder / "config.json").read_bytes())
    with pytest.raises(InputError, match="cannot be loaded"):
        find_segmenter(tmp_path)
    tensors = load_file(sam_folder / "model.safetensors")
    del tensors["mask_decoder.iou_token.weight"]
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(InputError, match=r"lack 1 of SAM's tensors, such as mask_decoder\.iou_token"):
        load_sam(tmp_path)
    config = json.loads((sam_folder / "config.json").read_text())
    config["mask_decoder_config"]["hidden_size"] = "wide"
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match="cannot be loaded"):
        load_sam(tmp_path)
