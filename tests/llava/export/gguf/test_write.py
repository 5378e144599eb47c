"""GGUF files read back by an independent reader: every tensor, value and token; what is refused."""

import importlib.util
import json
import re
import subprocess
import sys
import weakref

import gguf
import numpy as np
import pytest
import torch

from llava.common.environment import how_to_install
from llava.common.errors import InputError
from llava.export.convert import export
from llava.export.gguf import llamacpp, verify
from llava.export.gguf.tensors import GgufFile
from llava.export.gguf.write import export_gguf, open_source
from llava.export.merge import merge_adapters
from llava.model.builder import load_model
from tests.support.family_models import save_family
from tests.support.gguf_files import changed, values_of
from tests.support.small_model import save_random_model
from tests.support.tiny_models import save_base, save_run


def tensors_of(path):
    """What the file holds by name, as float32 in torch's order of axes."""
    reader = gguf.GGUFReader(path)
    return {
        tensor.name: gguf.dequantize(tensor.data, tensor.tensor_type).reshape(tensor.shape[::-1])
        for tensor in reader.tensors
    }


def unpermuted(rows, heads):
    """llama.cpp turns rows 2 i and 2 i + 1 of a head together, Hugging Face i and i + half: the other way."""
    half = rows.shape[0] // heads // 2
    found = np.empty_like(rows)
    for head in range(heads):
        start = head * 2 * half
        for i in range(half):
            found[start + i] = rows[start + 2 * i]
            found[start + half + i] = rows[start + 2 * i + 1]
    return found


def expected_names(model):
    """Ours by llama.cpp's names, spelt out one by one."""
    names = {
        "model.language_model.embed_tokens.weight": "token_embd.weight",
        "model.language_model.norm.weight": "output_norm.weight",
        "lm_head.weight": "output.weight",
        "model.vision_tower.embeddings.class_embedding": "v.class_embd",
        "model.vision_tower.embeddings.patch_embedding.weight": "v.patch_embd.weight",
        "model.vision_tower.embeddings.position_embedding.weight": "v.position_embd.weight",
        "model.image_newline": "v.image_newline",
    }
    for end in ("weight", "bias"):
        names[f"model.vision_tower.pre_layrnorm.{end}"] = f"v.pre_ln.{end}"
        names[f"model.multi_modal_projector.linear_1.{end}"] = f"mm.0.{end}"
        names[f"model.multi_modal_projector.linear_2.{end}"] = f"mm.2.{end}"
        for number in range(8):
            for ours, theirs in (
                ("self_attn.q_proj", "attn_q"), ("self_attn.k_proj", "attn_k"),
                ("self_attn.v_proj", "attn_v"), ("self_attn.o_proj", "attn_output"),
                ("mlp.gate_proj", "ffn_gate"), ("mlp.up_proj", "ffn_up"), ("mlp.down_proj", "ffn_down"),
                ("input_layernorm", "attn_norm"), ("post_attention_layernorm", "ffn_norm"),
            ):  # fmt: skip
                names[f"model.language_model.layers.{number}.{ours}.{end}"] = f"blk.{number}.{theirs}.{end}"
            for ours, theirs in (
                ("self_attn.q_proj", "attn_q"), ("self_attn.k_proj", "attn_k"),
                ("self_attn.v_proj", "attn_v"), ("self_attn.out_proj", "attn_out"),
                ("mlp.fc1", "ffn_down"), ("mlp.fc2", "ffn_up"),
                ("layer_norm1", "ln1"), ("layer_norm2", "ln2"),
            ):  # fmt: skip
                ours_too = f"model.vision_tower.encoder.layers.{number}.{ours}.{end}"
                names[ours_too] = f"v.blk.{number}.{theirs}.{end}"
    state = model.state_dict()
    return {ours: theirs for ours, theirs in names.items() if ours in state}, state


def assert_holds(folder, kind, model, bound):
    """Every tensor of the model is in the files, nothing else is; `bound` is a part of a tensor's largest."""
    found = tensors_of(folder / f"model-{kind}.gguf") | tensors_of(folder / f"mmproj-{kind}.gguf")
    names, state = expected_names(model)
    left = [ours for ours in state if ours not in names]
    assert all(ours.startswith("model.vision_tower.post_layernorm") for ours in left), left
    assert set(found) == set(names.values())
    heads = model.config.text_config
    for ours, theirs in names.items():
        values = found[theirs]
        if theirs.startswith("blk.") and "attn_q" in theirs:
            values = unpermuted(values, heads.num_attention_heads)
        if theirs.startswith("blk.") and "attn_k" in theirs:
            values = unpermuted(values, heads.num_key_value_heads)
        wanted = state[ours].float().numpy()
        if theirs == "v.position_embd.weight":  # for llama.cpp's class token behind the patches
            wanted = np.roll(wanted, -1, axis=0)
        assert values.shape == wanted.shape, ours
        largest = np.abs(wanted).max()
        assert np.abs(values - wanted).max() <= bound * largest, ours
        if wanted.ndim == 1:
            assert (values == wanted).all(), ours


# How far each type rounds: 11 bits, 8 bits, 1/254 of a block's largest (whose scale is float16).
ROUNDINGS = {"f32": 0.0, "f16": 2.0**-11, "bf16": 2.0**-8, "q8_0": 0.0042}


@pytest.mark.parametrize("kind", list(ROUNDINGS))
def test_every_tensor_is_there(tmp_path, tiny_model_dir, kind):
    folder = save_random_model(tiny_model_dir, tmp_path / "model")  # 4 heads, 2 of keys
    made = export_gguf(folder, tmp_path / "out", type=kind)
    assert (made.text, made.mmproj) == (
        tmp_path / "out" / f"model-{kind}.gguf", tmp_path / "out" / f"mmproj-{kind}.gguf",
    )  # fmt: skip
    assert made.notes == []
    assert_holds(tmp_path / "out", kind, load_model(folder, device="cpu").model, ROUNDINGS[kind])


@pytest.mark.parametrize("family", ["llava_next-llama", "llava_next-mistral"])
def test_llava_1_6(tmp_path, tiny_model_dir, family):
    folder = save_family(tiny_model_dir, tmp_path / "model", family)
    made = export_gguf(folder, tmp_path / "out", type="f32")
    assert_holds(tmp_path / "out", "f32", load_model(folder, device="cpu").model, 0.0)
    values = values_of(made.mmproj)
    assert values["clip.vision.mm_patch_merge_type"] == "spatial_unpad"
    # (width, height) pairs; ours are (height, width): [[24, 48], [48, 24], ...]
    assert values["clip.vision.image_grid_pinpoints"] == [48, 24, 24, 48, 48, 48, 24, 72, 72, 24]
    assert values["general.description"].startswith("approximate")
    assert any(note.startswith("approximate") for note in made.notes)


def test_metadata(tmp_path, tiny_model_dir):
    made = export_gguf(tiny_model_dir, tmp_path / "out")
    text, vision = values_of(made.text), values_of(made.mmproj)
    config = json.loads((tiny_model_dir / "config.json").read_text())
    assert text["general.architecture"] == "llama"
    for key, ours in {
        "context_length": "max_position_embeddings",
        "embedding_length": "hidden_size",
        "block_count": "num_hidden_layers",
        "feed_forward_length": "intermediate_size",
        "attention.head_count": "num_attention_heads",
        "attention.head_count_kv": "num_key_value_heads",
        "attention.key_length": "head_dim",
        "attention.value_length": "head_dim",
        "rope.dimension_count": "head_dim",
        "vocab_size": "vocab_size",
    }.items():
        assert text[f"llama.{key}"] == config["text_config"][ours], key
    assert text["llama.attention.layer_norm_rms_epsilon"] == pytest.approx(1e-6)
    assert text["llama.rope.freq_base"] == 10000.0
    assert text["general.file_type"] == gguf.LlamaFileType.MOSTLY_F16
    assert text["tokenizer.ggml.model"] == "llama"
    assert text["tokenizer.ggml.add_bos_token"] is True
    assert text["tokenizer.ggml.add_eos_token"] is False
    special = ("bos", "eos", "unknown", "padding")
    assert [text[f"tokenizer.ggml.{name}_token_id"] for name in special] == [1, 2, 0, 1025]

    assert [values["general.type"] for values in (text, vision)] == ["model", "mmproj"]
    assert [values["general.name"] for values in (text, vision)] == ["tiny-llava"] * 2
    assert vision["general.architecture"] == "clip"
    assert vision["clip.projector_type"] == "mlp"
    assert vision["clip.has_vision_encoder"] is True
    assert vision["clip.use_gelu"] is False  # quick_gelu
    assert vision["clip.vision.feature_layer"] == [5]  # -2 of 6 layers
    assert vision["clip.vision.block_count"] == 6
    assert vision["clip.vision.image_size"] == 144
    assert vision["clip.vision.patch_size"] == 12
    assert vision["clip.vision.attention.head_count"] == 5
    assert vision["clip.vision.image_mean"] == pytest.approx([0.48145466, 0.4578275, 0.40821073])
    assert vision["clip.vision.image_std"] == pytest.approx([0.26862954, 0.26130258, 0.27577711])
    assert "clip.vision.image_grid_pinpoints" not in vision
    assert vision["llava_inspect.llamacpp"] == "current"


@pytest.mark.parametrize(("layer", "written"), [(-1, 3), (-3, 1), (2, 2)])
def test_feature_layer_counts_layers(tmp_path, tiny_model_dir, layer, written):
    folder = save_base(tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    config["vision_feature_layer"] = layer
    config["vision_config"]["hidden_act"] = "gelu"
    (folder / "config.json").write_text(json.dumps(config))
    values = values_of(export_gguf(folder, tmp_path / "out").mmproj)
    assert values["clip.vision.feature_layer"] == [written]
    assert values["clip.use_gelu"] is True


def test_a_run_is_merged_in_float32(tmp_path):
    base = save_base(tmp_path / "base", dtype=torch.float16)
    run = save_run(tmp_path / "run", base, use_dora=True)
    merge_adapters(run, tmp_path / "merged", dtype="float32")
    export_gguf(run, tmp_path / "out", type="f32")
    assert_holds(tmp_path / "out", "f32", load_model(tmp_path / "merged", device="cpu").model, 1e-6)


def test_a_run_on_a_quantised_base_is_refused(tmp_path):
    run = save_run(tmp_path / "run", save_base(tmp_path / "base"), bits=4)
    with pytest.raises(InputError, match=r"merge it first: scripts/merge_lora\.py"):
        export_gguf(run, tmp_path / "out")


def test_an_original_folder_gives_the_same_file(tmp_path, tiny_model_dir):
    export(tiny_model_dir, tmp_path / "llava-v1.5-tiny", "llava")
    ours, theirs = (
        export_gguf(model, tmp_path / f"out-{number}")
        for number, model in enumerate((tiny_model_dir, tmp_path / "llava-v1.5-tiny"))
    )
    for one, other in ((ours.text, theirs.text), (ours.mmproj, theirs.mmproj)):
        held, held_too = tensors_of(one), tensors_of(other)
        assert set(held) == set(held_too)
        # the original has no rows for <image> and padding
        assert all((held[name][: len(values)] == values).all() for name, values in held_too.items())
    pieces = [values_of(path)["tokenizer.ggml.tokens"][:1024] for path in (ours.text, theirs.text)]
    assert pieces[0] == pieces[1]


def test_tensors_stream(tmp_path):
    """One tensor is gone when the next is there, merged ones too."""
    run = save_run(tmp_path / "run", save_base(tmp_path / "base"), projector=False)
    source = open_source(run, None)
    last = None
    for name, tensor in source.tensors:
        assert tuple(tensor.shape) == source.shapes[name]
        assert last is None or last() is None, name
        last = weakref.ref(tensor)
        del tensor
    assert last is not None


@pytest.mark.parametrize(
    ("card", "written"),
    [("---\nlicense: llama2\n---\n# Mine\n", "llama2"), ("---\nlicense: [\n---\n", None), ("# Mine\n", None)],
)
def test_the_license_of_the_model_card(tmp_path, card, written):
    folder = save_base(tmp_path / "model")
    (folder / "README.md").write_text(card)
    made = export_gguf(folder, tmp_path / "out")
    assert [values_of(path).get("general.license") for path in (made.text, made.mmproj)] == [written] * 2


def test_a_stop_text_that_is_no_token_is_told(tmp_path):
    run = save_run(tmp_path / "run", save_base(tmp_path / "base"))
    changed(run, "run.json", conv_mode="llava_v0")
    [note] = export_gguf(run, tmp_path / "out").notes
    assert "'###'" in note and "stop text" in note


# --- what is refused ---------------------------------------------------------------------------------------


def test_refusals_write_nothing(tmp_path, tiny_model_dir):
    onevision = save_family(tiny_model_dir, tmp_path / "one", "llava_onevision-qwen2")
    whole = save_base(tmp_path / "whole")
    changed(whole, "config.json", vision_feature_select_strategy="full")
    out = tmp_path / "out"
    for folder, kind, message in [
        (onevision, "f16", "OneVision.*vLLM or SGLang"),
        (whole, "f16", "class token is kept"),
        (tiny_model_dir, "q4_0", "choose one of f32, f16, bf16, q8_0"),
    ]:
        with pytest.raises(InputError, match=message) as caught:
            export_gguf(folder, out, type=kind)
        assert "\n" not in str(caught.value)
        assert not out.exists()


def test_weights_that_f16_cannot_hold(tmp_path):
    folder = save_base(tmp_path / "model")
    loaded = load_model(folder, device="cpu")
    with torch.no_grad():
        loaded.model.lm_head.weight[5, 5] = 1e6
    loaded.model.save_pretrained(str(folder))
    with pytest.raises(InputError, match=r"output\.weight does not fit f16; export with --type bf16"):
        export_gguf(folder, tmp_path / "out" / "f16")
    assert list((tmp_path / "out").iterdir()) == []
    export_gguf(folder, tmp_path / "out" / "bf16", type="bf16")


def test_a_full_disk_is_one_line(tmp_path, tiny_model_dir, monkeypatch):
    def full(self, name, tensor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(GgufFile, "add", full)
    with pytest.raises(InputError, match=r"out is not written: .*No space left on device"):
        export_gguf(tiny_model_dir, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_an_existing_folder(tmp_path, tiny_model_dir):
    out = tmp_path / "out"
    export_gguf(tiny_model_dir, out)
    with pytest.raises(InputError, match="--overwrite"):
        export_gguf(tiny_model_dir, out)
    export_gguf(tiny_model_dir, out, type="q8_0", overwrite=True)
    assert sorted(path.name for path in out.iterdir()) == ["mmproj-q8_0.gguf", "model-q8_0.gguf"]
    for path in out.iterdir():
        path.unlink()
    export_gguf(tiny_model_dir, out, overwrite=True)  # an empty folder
    (out / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="not overwritten"):
        export_gguf(tiny_model_dir, out, overwrite=True)
    assert (out / "notes.txt").read_text() == "mine"


def test_rows_that_q8_0_cannot_hold_are_told(tmp_path):
    folder = save_base(tmp_path / "model")  # 48 is no multiple of 32
    made = export_gguf(folder, tmp_path / "out", type="q8_0")
    assert "f16" in made.notes[0] and "blk.0.ffn_down.weight" in made.notes[0]
    assert_holds(tmp_path / "out", "q8_0", load_model(folder, device="cpu").model, ROUNDINGS["q8_0"])


@pytest.mark.parametrize(("package", "extra"), [("gguf", "gguf"), ("llama_cpp", "llamacpp")])
def test_an_absent_package_is_one_line(tmp_path, tiny_model_dir, monkeypatch, package, extra):
    folder = tmp_path / "out"
    if package == "llama_cpp":
        export_gguf(tiny_model_dir, folder)
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == package else found(name)
    )
    with pytest.raises(InputError, match=re.escape(how_to_install(extra))):
        if package == "gguf":
            export_gguf(tiny_model_dir, folder)
        else:
            verify.verify(tiny_model_dir, folder)


def test_an_old_llama_cpp_python_is_one_line(tmp_path, tiny_model_dir, monkeypatch):
    pytest.importorskip("llama_cpp")
    monkeypatch.setattr(llamacpp, "version", lambda _: "0.3.8")
    with pytest.raises(InputError, match=r"0\.3\.36 or later, 0\.3\.8 is installed") as caught:
        verify.verify(tiny_model_dir, tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "flags",
    [
        ["gguf", "--dtype", "float16"],
        ["gguf", "--max-shard-size", "1GB"],
        ["hf", "--type", "f16"],
        ["hf", "--verify"],
        ["hf", "--llamacpp", "stock"],
    ],
)
def test_flags_of_another_format_are_refused(tmp_path, repo, flags):
    command = [
        sys.executable,
        "scripts/export.py",
        "--model-path",
        "x",
        "--output",
        str(tmp_path / "out"),
        "--format",
    ]
    done = subprocess.run([*command, *flags], capture_output=True, text=True, cwd=repo, check=False)
    assert done.returncode == 2
    assert f"{flags[1]} is for --format" in done.stderr and done.stderr.count("\n") == 1
