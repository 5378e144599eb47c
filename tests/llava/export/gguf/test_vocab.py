"""What GGUF files say of the tokenizer and the chat template, read back and compared with ours."""

import json
import shutil
from itertools import pairwise

import gguf
import jinja2
import pytest
from hypothesis import given, settings
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from llava.common.errors import InputError
from llava.conversation import conv_templates
from llava.export.gguf.vocab import read_vocab
from llava.export.gguf.write import chat_template, export_gguf
from llava.model.folder import open_model_folder
from llava.model.processor_files import fill_vocabulary
from tests.support.byte_level import LLAMA_3, byte_level_tokenizer, save_byte_level
from tests.support.gguf_files import TEXTS, changed, values_of
from tests.support.tiny_models import save_base


def joined_by_score(text, values):
    """The ids of a text by SentencePiece's BPE: join the best scored neighbours, the first of equals, until
    none is a piece; what is no piece is its UTF-8 bytes. Written from the algorithm's description."""
    ids = {token: index for index, token in enumerate(values["tokenizer.ggml.tokens"])}
    scores, types = values["tokenizer.ggml.scores"], values["tokenizer.ggml.token_type"]
    pieces = list(text.replace(" ", "▁"))
    while True:
        joins = [
            (-scores[ids[one + two]], index)
            for index, (one, two) in enumerate(pairwise(pieces))
            if one + two in ids and types[ids[one + two]] == gguf.TokenType.NORMAL
        ]
        if not joins:
            break
        _, index = min(joins)
        pieces[index : index + 2] = [pieces[index] + pieces[index + 1]]
    found = []
    for piece in pieces:
        if piece in ids:
            found.append(ids[piece])
        else:
            found += [ids[f"<0x{byte:02X}>"] for byte in piece.encode()]
    return found


@pytest.fixture(scope="module")
def tiny_values(tmp_path_factory, tiny_model_dir):
    return values_of(export_gguf(tiny_model_dir, tmp_path_factory.mktemp("gguf") / "out").text)


@pytest.fixture(scope="module")
def tiny_tokenizer(tiny_model_dir):
    return open_model_folder(tiny_model_dir).tokenizer


@given(TEXTS)
@settings(max_examples=150)
def test_written_pieces_and_scores_give_our_ids(tiny_values, tiny_tokenizer, text):
    ours = tiny_tokenizer(text)["input_ids"]
    prefixed = text if text[:1] in (" ", "▁") or not text else " " + text
    assert tiny_values["tokenizer.ggml.add_space_prefix"] is True
    assert [1, *joined_by_score(prefixed, tiny_values)] == ours


def test_token_types(tiny_values):
    kinds, tokens = tiny_values["tokenizer.ggml.token_type"], tiny_values["tokenizer.ggml.tokens"]
    of = dict(zip(tokens, kinds, strict=True))
    assert len(tokens) == 1088  # the rows of the embedding matrix
    assert of["<unk>"] == gguf.TokenType.UNKNOWN
    assert {of[name] for name in ("<s>", "</s>", "<image>", "<pad>")} == {gguf.TokenType.CONTROL}
    assert {of[f"<0x{byte:02X}>"] for byte in range(256)} == {gguf.TokenType.BYTE}
    assert of["▁the"] == gguf.TokenType.NORMAL
    assert {of[f"[PAD{row}]"] for row in range(1026, 1088)} == {gguf.TokenType.UNUSED}


def test_byte_level_vocabulary(tmp_path, tiny_model_dir):
    folder = save_byte_level(tiny_model_dir, tmp_path / "model")
    values = values_of(export_gguf(folder, tmp_path / "out").text)
    assert values["tokenizer.ggml.model"] == "gpt2"
    assert values["tokenizer.ggml.pre"] == "llama-bpe"
    tokens, merges = values["tokenizer.ggml.tokens"], values["tokenizer.ggml.merges"]
    rebuilt = Tokenizer(
        models.BPE({token: i for i, token in enumerate(tokens)}, [tuple(pair.split(" ")) for pair in merges])
    )
    ours = open_model_folder(folder).tokenizer
    rebuilt.pre_tokenizer = ours.backend_tokenizer.pre_tokenizer
    text = "The disc's 1234 är 绝缘子\n\n broken?"
    assert rebuilt.encode(text).ids == ours(text, add_special_tokens=False)["input_ids"]


def test_an_end_of_turn_that_is_not_eos_is_named():
    tokenizer = byte_level_tokenizer(LLAMA_3)
    vocab = read_vocab(tokenizer, 600, "<|eot_id|>")
    assert vocab.special["eot"] == tokenizer.convert_tokens_to_ids("<|eot_id|>")
    assert "eot" not in read_vocab(tokenizer, 600, "<|end|>").special


def with_backend(tokenizer, **parts):
    """A tokenizer of other normalizers and pre-tokenizers."""
    for name, part in parts.items():
        setattr(tokenizer.backend_tokenizer, name, part)
    return tokenizer


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (lambda _: byte_level_tokenizer(r"\w+"), "no known name"),
        (
            lambda _: with_backend(byte_level_tokenizer(""), pre_tokenizer=pre_tokenizers.Whitespace()),
            "by Whitespace, which llama.cpp does not do",
        ),
        (lambda _: with_backend(byte_level_tokenizer(""), pre_tokenizer=None), "knows no bytes"),
        (
            lambda _: with_backend(byte_level_tokenizer(""), pre_tokenizer=pre_tokenizers.ByteLevel(True)),
            "by add_prefix_space",
        ),
        (
            lambda tiny: with_backend(open_model_folder(tiny).tokenizer, normalizer=normalizers.NFKC()),
            "by NFKC, which llama.cpp does not do",
        ),
        (
            lambda tiny: with_backend(
                open_model_folder(tiny).tokenizer, normalizer=normalizers.Replace("a", "b")
            ),
            "by Replace {'String': 'a'}",
        ),
        (
            lambda tiny: with_backend(
                open_model_folder(tiny).tokenizer, pre_tokenizer=pre_tokenizers.Split("x", "isolated")
            ),
            "by Split",
        ),
    ],
)
def test_tokenizers_that_are_refused(tiny_model_dir, broken, message):
    with pytest.raises(InputError, match=message):
        read_vocab(broken(tiny_model_dir), 1088, "x")


def test_a_vocabulary_larger_than_the_model_is_refused():
    with pytest.raises(InputError, match="the model 10 embeddings"):
        read_vocab(byte_level_tokenizer(LLAMA_3), 10, "x")


def test_gpt_2s_own_expression():
    split = pre_tokenizers.ByteLevel(add_prefix_space=False)
    assert read_vocab(with_backend(byte_level_tokenizer(""), pre_tokenizer=split), 600, "x").pre == "gpt-2"


def test_spaces_that_llama_cpp_puts_are_told(tmp_path):
    folder = save_base(tmp_path / "model")
    described = json.loads((folder / "tokenizer.json").read_text())["pre_tokenizer"]
    changed(folder, "tokenizer.json", pre_tokenizer=described | {"prepend_scheme": "first"})
    [note] = export_gguf(folder, tmp_path / "out").notes
    assert "space" in note and "differently" in note


# --- the chat template -------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [name for name, mode in conv_templates.items() if not mode.images_only])
def test_chat_template_is_the_conv_mode(mode):
    """As a string (llama.cpp's server joins the parts itself), as llama-cpp-python's parts of text, as
    llama.cpp's media_marker parts and as OpenAI's own: the picture stands on a line of its own."""
    template = conv_templates[mode]
    rendered = jinja2.Environment().from_string(chat_template(template))
    marker = "<__media_x7__>"
    turns = [("human", f"{marker}\nIs it broken?"), ("gpt", "Yes."), ("human", "Where?")]
    wanted = template.text(turns, generation_prompt=True)
    question = {"type": "text", "text": "Is it broken?"}
    for content, mark in [
        (f"{marker}Is it broken?", marker),
        (f"{marker}\nIs it broken?", marker),
        ([{"type": "text", "text": marker}, question], marker),
        ([{"type": "media_marker", "text": marker}, question], marker),
        ([{"type": "image_url", "image_url": {"url": "x"}}, question], "<__media__>"),
    ]:
        messages = [
            {"role": "user", "content": content},
            {"role": "assistant", "content": "Yes."},
            {"role": "user", "content": [{"type": "text", "text": "Where?"}]},
        ]
        got = rendered.render(messages=messages, add_generation_prompt=True)
        assert got.replace(mark, marker) == wanted


def test_a_merged_folders_fillers_are_unused_rows_as_well(tiny_model_dir, tmp_path):
    shutil.copytree(tiny_model_dir, tmp_path / "filled")
    assert fill_vocabulary(tmp_path / "filled", 1088) == []
    before, after = (
        read_vocab(open_model_folder(folder).tokenizer, 1088, "</s>")
        for folder in (tiny_model_dir, tmp_path / "filled")
    )
    assert after == before
