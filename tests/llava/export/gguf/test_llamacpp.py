"""GGUF files computed by llama.cpp itself, where llama-cpp-python is installed."""

import base64
import io
import json
import shutil

import numpy as np
import pytest

pytest.importorskip("llama_cpp", reason="llama-cpp-python is absent: scripts/setup.sh llamacpp")

import torch
from hypothesis import given, settings
from llama_cpp import Llama
from llama_cpp.llama_chat_format import MTMDChatHandler
from PIL import Image
from rich.console import Console

from llava.common.errors import InputError
from llava.export.gguf import verify
from llava.export.gguf.llamacpp import LlamaCpp
from llava.export.gguf.write import export_gguf
from llava.model.builder import load_model
from llava.model.folder import open_model_folder
from llava.model.run_dir import copy_processor_files
from tests.support.byte_level import save_byte_level
from tests.support.family_models import save_family
from tests.support.gguf_files import TEXTS
from tests.support.small_model import save_random_model
from tests.support.tiny_models import save_base, save_run


def checks(model, folder):
    kind, text, mmproj = verify.find_files(folder)
    loaded = load_model(model, device="cpu")
    with LlamaCpp(text, mmproj) as theirs:
        square = verify._read_image(loaded, None)
        return {v.part: v for v in verify.compare(loaded, theirs, kind, verify.read_build(mmproj), square)}


EXACT = ("logits text", "answer text", "logits with our picture embeddings", "token ids")


@pytest.mark.parametrize("family", ["random", "llava-llama", "llava_next-llama", "llava_next-mistral"])
def test_llama_cpp_computes_the_same(tmp_path, tiny_model_dir, family):
    folder = tmp_path / "model"
    if family == "random":
        save_random_model(tiny_model_dir, folder)
    else:
        save_family(tiny_model_dir, folder, family)
    export_gguf(folder, tmp_path / "out", type="f32")
    found = checks(folder, tmp_path / "out")
    assert all(found[part].status == "PASS" for part in EXACT), found
    assert max(found[part].difference for part in EXACT if part.startswith("logits")) < 1e-3
    assert {v.status for v in found.values()} <= {"PASS", "KNOWN"}, found
    if family.startswith("llava_next"):
        assert "tiles" in found["picture embeddings"].reason


@pytest.mark.parametrize(
    "text",
    [
        {"tie_word_embeddings": True, "attention_bias": True, "mlp_bias": True},
        {
            "rope_parameters": {
                "rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0,
                "high_freq_factor": 4.0, "original_max_position_embeddings": 16,
            }
        },
        {"rope_parameters": {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0}},
    ],
    ids=["tied-and-biased", "llama3-rope", "linear-rope"],
)  # fmt: skip
def test_llama_cpp_and_llama_3_shapes(tmp_path, tiny_model_dir, text):
    folder = save_byte_level(tiny_model_dir, tmp_path / "model", **text)
    export_gguf(folder, tmp_path / "out", type="f32")
    found = checks(folder, tmp_path / "out")
    assert all(found[part].status == "PASS" for part in EXACT), found


@pytest.mark.parametrize("kind", ["f16", "bf16", "q8_0"])
def test_other_types_stay_within_their_bounds(tmp_path, tiny_model_dir, kind):
    export_gguf(tiny_model_dir, tmp_path / "out", type=kind)
    found = checks(tiny_model_dir, tmp_path / "out")
    assert {v.status for v in found.values()} <= {"PASS", "KNOWN"}, found


@pytest.mark.parametrize("size", [(24, 14), (14, 24)])
def test_llama_cpp_pads_as_we_do(tmp_path, tiny_model_dir, size):
    """To a square around the middle, with the mean colour (docs/interop.md); the class token aside."""
    folder = save_family(tiny_model_dir, tmp_path / "model", "llava-llama")
    made = export_gguf(folder, tmp_path / "out", type="f32")
    loaded = load_model(folder, device="cpu")
    noise = np.random.default_rng(0).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
    with LlamaCpp(made.text, made.mmproj) as theirs:
        own = next(p for p in theirs.read_prompt(theirs.marker, noise) if isinstance(p, np.ndarray))
    ours = verify._TorchModel(loaded, loaded.processor.vision.square_processor.square(Image.fromarray(noise)))
    off = min(np.abs(own - ours.embeddings(behind=behind, build="current")).max() for behind in (False, True))
    assert off < 5e-3 * np.abs(own).max()


def test_another_models_files_fail(tmp_path, tiny_model_dir):
    one = save_random_model(tiny_model_dir, tmp_path / "one")
    other = load_model(one, device="cpu")
    with torch.no_grad():
        other.model.model.multi_modal_projector.linear_2.weight.mul_(1.05)
        other.model.model.language_model.layers[1].mlp.up_proj.weight.mul_(1.05)
    other.model.save_pretrained(str(tmp_path / "other"))
    copy_processor_files(one, tmp_path / "other")
    export_gguf(one, tmp_path / "out", type="f32")
    console = Console(record=True, width=200)
    assert verify.verify(one, tmp_path / "out", console=console)
    assert "FAIL" not in console.export_text()
    assert not verify.verify(tmp_path / "other", tmp_path / "out", console=console)
    assert console.export_text().count("FAIL") >= 3


def test_a_run_is_exported_as_peft_computes_it(tmp_path):
    run = save_run(tmp_path / "run", save_base(tmp_path / "base"), use_dora=True)
    export_gguf(run, tmp_path / "out", type="f32")
    console = Console(record=True, width=200)
    assert verify.verify(run, tmp_path / "out", console=console)
    assert "FAIL" not in console.export_text()


def test_a_damaged_file_is_one_line(tmp_path, tiny_model_dir):
    made = export_gguf(tiny_model_dir, tmp_path / "out")
    made.text.write_bytes(made.text.read_bytes()[:-100_000])
    with pytest.raises(InputError, match=r"llama\.cpp cannot load") as caught:
        verify.verify(tiny_model_dir, tmp_path / "out")
    assert "\n" not in str(caught.value)


def test_llama_cpp_pythons_own_chat_asks_as_trained(tmp_path, tiny_model_dir):
    """Its chat handler, as in docs/interop.md, with the template in the file."""
    folder = save_family(tiny_model_dir, tmp_path / "model", "llava-llama")
    made = export_gguf(folder, tmp_path / "out", type="f32")
    square, file = Image.new("RGB", (24, 24), (200, 30, 30)), io.BytesIO()
    square.save(file, "PNG")
    url = "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
    handler = MTMDChatHandler(clip_model_path=str(made.mmproj), verbose=False)
    llm = Llama(str(made.text), chat_handler=handler, n_ctx=256, verbose=False)
    asked = [
        {"type": "image_url", "image_url": {"url": url}},
        {"type": "text", "text": "Is it broken?"},
    ]
    llm.create_chat_completion([{"role": "user", "content": asked}], max_tokens=1, temperature=0)
    processor = load_model(folder, device="cpu").processor
    wanted = processor.encode_prompt([("human", "<image>\nIs it broken?")], [(24, 24)])
    images = wanted.count(processor.image_token_id)
    first = wanted.index(processor.image_token_id)
    read = llm.input_ids[: len(wanted)].tolist()
    assert images == 9
    assert read[:first] + read[first + images :] == [t for t in wanted if t != processor.image_token_id]


def with_prepended_space(tiny, folder):
    """The tiny base with the normalizer of the Hub's LLaVA-1.5 and Mistral tokenizers."""
    shutil.copytree(tiny, folder)
    path = folder / "tokenizer.json"
    described = json.loads(path.read_text())
    replaced = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
    steps = [{"type": "Prepend", "prepend": "▁"}, replaced]
    described |= {"pre_tokenizer": None, "normalizer": {"type": "Sequence", "normalizers": steps}}
    path.write_text(json.dumps(described))
    return folder


@pytest.mark.parametrize("kind", ["metaspace", "prepend", "byte-level"])
def test_llama_cpp_reads_text_as_we_do(tmp_path_factory, tiny_model_dir, kind):
    """Metaspace alone leaves a text's own leading space as it is; llama.cpp puts another before it."""
    root = tmp_path_factory.mktemp("ids")
    folder = {
        "metaspace": lambda tiny, _: tiny,
        "prepend": with_prepended_space,
        "byte-level": save_byte_level,
    }[kind](tiny_model_dir, root / "model")
    made = export_gguf(folder, root / "out")
    tokenizer = open_model_folder(folder).tokenizer
    texts = TEXTS.filter(lambda text: text and (kind != "metaspace" or text[0] not in " ▁"))
    with LlamaCpp(made.text, made.mmproj) as theirs:

        @given(texts)
        @settings(max_examples=150)
        def check(text):
            [ids] = theirs.read_prompt(text)
            assert ids == tokenizer(text)["input_ids"]

        check()
