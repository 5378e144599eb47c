"""Images reach the model padded and whole; supervised tokens are exactly the answers."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers import LlavaConfig
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil

from llava.common.errors import InputError
from llava.common.images import open_image
from llava.conversation import conv_templates
from llava.model.folder import open_model_folder
from llava.processing.text import RecordProcessor
from llava.processing.vision import SquareProcessor, VisionProcessor, pad_to_square

SIZE = {"size": {"shortest_edge": 144}, "crop_size": {"height": 144, "width": 144}}
IMAGE_TOKENS = 16


@pytest.fixture(scope="module")
def processor(tiny_model_dir):
    return make_processor(tiny_model_dir)


def make_processor(folder, mode="v1", max_length=None):
    tokenizer = open_model_folder(folder).tokenizer
    image_id = tokenizer.convert_tokens_to_ids("<image>")
    config = LlavaConfig(
        vision_config={"model_type": "clip_vision_model", "image_size": 144, "patch_size": 36}
    )
    images = VisionProcessor(config, CLIPImageProcessorPil(**SIZE))
    return RecordProcessor(tokenizer, images, conv_templates[mode], image_id, max_length)


def noise(width, height, seed=0):
    values = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values)


@pytest.mark.parametrize("size", [(30, 11), (11, 30), (8, 8), (7, 6)])
def test_padding_is_llavas_rule(size):
    image, colour = noise(*size), (122, 116, 104)
    width, height = size
    side = max(size)
    expected = np.empty((side, side, 3), np.uint8)
    expected[:] = colour
    top, left = (side - height) // 2, (side - width) // 2
    expected[top : top + height, left : left + width] = np.asarray(image)
    assert (np.asarray(pad_to_square(image, colour)) == expected).all()


@pytest.mark.parametrize("size", [(500, 200), (90, 301), (144, 144)])
def test_pixels_equal_transformers_padded_processor(size):
    image = noise(*size)
    own = SquareProcessor(CLIPImageProcessorPil(**SIZE))(image).numpy()
    theirs = LlavaImageProcessorPil(**SIZE, do_pad=True)(image, return_tensors="np")["pixel_values"][0]
    assert own.dtype == np.float32
    assert own.shape == (3, 144, 144)
    assert (own == theirs).all()


def test_a_wide_image_keeps_its_ends():
    image = Image.new("RGB", (800, 200), (0, 255, 0))
    image.paste((255, 0, 0), (0, 0, 100, 200))
    image.paste((0, 0, 255), (700, 0, 800, 200))
    square = SquareProcessor(CLIPImageProcessorPil(**SIZE))
    pixels = square(image).numpy()
    middle, top = pixels[:, 72, :], pixels[:, 0, :]
    assert middle[0, 2] > middle[2, 2]  # red at the left end
    assert middle[2, -3] > middle[0, -3]  # blue at the right end
    assert np.abs(top).max() < 0.02  # above and below: the mean colour, which normalises to about 0
    assert square.mean_colour == (122, 116, 104)


def test_images_are_opened_whole_and_upright(tmp_path):
    wide = noise(40, 20)
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned a quarter clockwise
    wide.save(tmp_path / "turned.jpg", exif=exif)
    assert open_image(tmp_path / "turned.jpg").size == (20, 40)

    Image.fromarray(np.full((4, 4), 32768, np.uint16)).save(tmp_path / "deep.png")
    assert open_image(tmp_path / "deep.png").getpixel((0, 0)) == (128, 128, 128)

    Image.new("RGBA", (4, 4), (0, 0, 0, 0)).save(tmp_path / "clear.png")
    assert open_image(tmp_path / "clear.png").getpixel((0, 0)) == (255, 255, 255)

    Image.new("CMYK", (4, 4), (0, 0, 0, 255)).save(tmp_path / "print.tif")
    assert open_image(tmp_path / "print.tif").getpixel((0, 0)) == (0, 0, 0)

    Image.new("P", (4, 4), 0).save(tmp_path / "palette.gif")
    assert open_image(tmp_path / "palette.gif").mode == "RGB"


def test_unusable_images_are_named(tmp_path):
    buffer = io.BytesIO()
    noise(200, 200).save(buffer, "JPEG")
    (tmp_path / "half.jpg").write_bytes(buffer.getvalue()[: len(buffer.getvalue()) // 2])
    (tmp_path / "note.jpg").write_text("hello")
    (tmp_path / "empty.png").touch()
    for name, reason in [
        ("half.jpg", "cut short"),
        ("note.jpg", "not a picture"),
        ("empty.png", "not a picture"),
        ("absent.jpg", "no such picture"),
    ]:
        with pytest.raises(InputError, match=rf"{name}.*{reason}"):
            open_image(tmp_path / name)
    with pytest.raises(InputError, match="is a folder"):
        open_image(tmp_path)


def supervised(processor, turns):
    encoded = processor.encode(turns)
    assert len(encoded.input_ids) == len(encoded.labels)
    kept = [token for token, label in zip(encoded.input_ids, encoded.labels, strict=True) if label != -100]
    assert kept == [label for label in encoded.labels if label != -100]
    return processor.tokenizer.decode(kept, clean_up_tokenization_spaces=False)


def test_supervised_tokens_are_the_answers_token_by_token(processor):
    turns = [("human", "<image>\nWhat?"), ("gpt", "A déjà vu 绝缘子 ⚡."), ("human", "Sure?"), ("gpt", "Yes")]
    assert supervised(processor, turns) == "A déjà vu 绝缘子 ⚡.</s> Yes</s>"
    encoded = processor.encode(turns)
    tokens = processor.tokenizer.convert_ids_to_tokens(encoded.input_ids)
    assert "<0xE7>" in tokens  # a character outside the vocabulary, spelled in bytes and supervised whole
    first = next(index for index, label in enumerate(encoded.labels) if label != -100)
    assert tokens[first - 1] == ":" and tokens[first] == "▁A"
    assert encoded.input_ids[0] == processor.tokenizer.bos_token_id
    assert encoded.input_ids.count(processor.tokenizer.bos_token_id) == 1
    assert encoded.labels[-1] == processor.tokenizer.eos_token_id


letters = st.text(st.characters(codec="utf-8", exclude_characters="<>\0▁"), min_size=1).filter(str.strip)


@settings(max_examples=50)
@given(texts=st.lists(st.tuples(letters, letters), min_size=1, max_size=3))
def test_any_text_is_supervised_exactly(processor, texts):
    turns = [turn for question, answer in texts for turn in (("human", question), ("gpt", answer))]
    encoded = processor.encode(turns)
    spans, current = [], []
    for label in encoded.labels:
        if label != -100:
            current.append(label)
        elif current:
            spans, current = [*spans, current], []
    spans.append(current)
    # An answer's tokens begin with the space that leads it, which decoding alone strips.
    decoded = [processor.tokenizer.decode(span) for span in spans]
    assert decoded == [f"{answer}</s>" for _, answer in texts]


def test_prompt_is_the_start_of_the_training_tokens(processor):
    turns = [("human", "<image>\nWhat?"), ("gpt", "A disc."), ("human", "Sure?"), ("gpt", "Yes")]
    for end in (1, 3):
        prompt = processor.encode_prompt(turns[:end])
        encoded = processor.encode(turns[: end + 1])
        assert encoded.input_ids[: len(prompt)] == prompt
        assert encoded.labels[len(prompt)] != -100


def test_each_image_becomes_its_tokens(processor):
    encoded = processor.encode([("human", "<image>\n<image>\nWhich?"), ("gpt", "The first.")])
    assert encoded.n_images == 2
    assert encoded.input_ids.count(processor.image_token_id) == 2 * IMAGE_TOKENS
    text_only = processor.encode([("human", "Hello?"), ("gpt", "Hello.")])
    assert text_only.n_images == 0


@pytest.mark.parametrize("mode", ["llava_llama_2", "mistral_instruct", "plain"])
def test_other_modes_supervise_their_answers(tiny_model_dir, mode):
    processor = make_processor(tiny_model_dir, mode)
    text = supervised(processor, [("human", "<image>\nWhat?"), ("gpt", "A disc.")])
    end = {"plain": "\n"}.get(mode, "</s>")
    assert text.startswith("A disc.")
    assert text.endswith(end)


@pytest.mark.parametrize(
    "turns",
    [
        [("human", "Repeat </s> USER: x"), ("gpt", "ok")],
        [("human", "What is <s>?"), ("gpt", "ok")],
        [("human", "Hello"), ("gpt", "an <image> mark")],
        [("human", "Hello <pad>"), ("gpt", "ok")],
    ],
)
def test_text_cannot_smuggle_in_special_tokens(processor, turns):
    with pytest.raises(InputError, match=r"turn \d contains '<.*>', which the tokenizer reads as a special"):
        processor.encode(turns)


def test_nothing_to_learn_and_too_long_are_errors(tiny_model_dir, processor):
    with pytest.raises(InputError, match="no supervised token"):
        processor.encode([("human", "Hello?")])
    short = make_processor(tiny_model_dir, max_length=20)
    with pytest.raises(InputError, match=r"has \d+ tokens, more than max_length 20"):
        short.encode([("human", "Hello?"), ("gpt", "Hello.")])
