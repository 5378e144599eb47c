"""What is exported is the same model in the other format, bit for bit, and what the original client wants."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from sentencepiece import SentencePieceProcessor
from transformers import AutoProcessor, AutoTokenizer, CLIPVisionModel

from llava.common.errors import InputError
from llava.export.convert import export
from llava.model.builder import load_model
from llava.model.folder import open_model_folder
from llava.model.shards import open_weights
from llava_inspect.export import main as export_command
from tests.llava.model.test_original import DAMAGE, FAMILIES
from tests.support.commands import run_here
from tests.support.family_models import save_family
from tests.support.original_folders import logits, save_original
from tests.support.tiny_models import save_base, save_run


def names(family):
    return "llava-v1.6-mistral" if "mistral" in family else "llava-v1.5-mine"


def assert_same(first: Path, second: Path, dtype: torch.dtype | None = None) -> None:
    """The same tensors, in every bit and type (or those of `second` in `dtype`)."""
    found, expected = (open_model_folder(folder).open_tensors() for folder in (first, second))
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        value, other = found[name].read(), tensor.read().to(dtype or tensor.dtype)
        assert value.dtype == other.dtype and torch.equal(value, other), name


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_original_to_hugging_face_and_back(tiny_model_dir, tmp_path, family, dtype):
    form = {} if dtype == torch.float32 else {"tower_inside": True, "shards": 2, "form": "bin"}
    first, tensors = save_original(tiny_model_dir, tmp_path / "first", family, dtype=dtype, **form)
    hub, back = tmp_path / "hub", tmp_path / names(family)
    export(first, hub, "hf")
    export(hub, back, "llava")
    assert_same(hub, first)
    assert_same(back, first)
    stored = {name: tensor.read() for name, tensor in open_weights(back).items()}
    tower = {name: tensor.read() for name, tensor in open_weights(back / "vision_tower").items()}
    stored |= {f"model.vision_tower.vision_tower.{name}": tensor for name, tensor in tower.items()}
    assert stored.keys() == tensors.keys()  # the original's names, not ours of both
    for name, tensor in tensors.items():
        assert stored[name].dtype == dtype and torch.equal(stored[name], tensor), name


@pytest.mark.parametrize("family", FAMILIES)
def test_hugging_face_to_original_and_back(tiny_model_dir, tmp_path, family):
    first = save_family(tiny_model_dir, tmp_path / "first", family)
    there, back = tmp_path / names(family), tmp_path / "back"
    export(first, there, "llava")
    export(there, back, "hf")
    assert_same(there, first)
    assert_same(back, first)  # the rows of <image>, <pad> and the padding too
    assert all(name.startswith(("language_model.", "multi_modal_projector.", "vision_tower.vision_model.")) or
               name == "image_newline" for name in open_weights(back))  # fmt: skip
    model = load_model(first, device="cpu")
    for folder in (there, back):
        other = load_model(folder, device="cpu")
        assert torch.equal(logits(other), logits(model))
        assert other.tokenizer("USER: x</s>").input_ids == model.tokenizer("USER: x</s>").input_ids


def test_the_embedded_base_comes_back_as_it_was(tiny_model_dir, tmp_path):
    export(tiny_model_dir, tmp_path / "llava-v1.5-tiny", "llava", max_shard_size=2_000_000)
    export(tmp_path / "llava-v1.5-tiny", tmp_path / "back", "hf", max_shard_size=2_000_000)
    assert_same(tmp_path / "back", tiny_model_dir)
    assert len(list((tmp_path / "back").glob("model-*-of-*.safetensors"))) > 2
    assert max(path.stat().st_size for path in (tmp_path / "back").glob("*.safetensors")) < 2_100_000
    first, back = load_model(tiny_model_dir, device="cpu"), load_model(tmp_path / "back", device="cpu")
    assert torch.equal(logits(first), logits(back))
    assert back.template == first.template
    loaded = AutoProcessor.from_pretrained(tmp_path / "back")
    assert type(loaded).__name__ == "LlavaProcessor"
    text = "USER: <image>\nWhat? ASSISTANT: No.</s>USER: b"
    assert AutoTokenizer.from_pretrained(tmp_path / "back")(text).input_ids == back.tokenizer(text).input_ids


@pytest.mark.parametrize("family", FAMILIES)
def test_the_folder_is_what_the_original_client_reads(tiny_model_dir, tmp_path, family):
    folder = tmp_path / names(family)
    told = export(save_family(tiny_model_dir, tmp_path / "first", family), folder, "llava")
    config = json.loads((folder / "config.json").read_text())
    language = "Mistral" if "mistral" in family else "Llama"
    assert config["architectures"] == [f"Llava{language}ForCausalLM"]
    assert config["model_type"] == f"llava_{language.lower()}"
    assert config["vocab_size"] == 1024 > config["pad_token_id"]
    assert {config["mm_use_im_start_end"], config["mm_use_im_patch_token"]} == {False}
    tensors = open_weights(folder)
    assert tensors["model.embed_tokens.weight"].shape[0] == tensors["lm_head.weight"].shape[0] == 1024
    assert len(SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))) == 1024
    assert not (folder / "tokenizer.json").exists()
    if family.startswith("llava_next"):
        assert (config["image_aspect_ratio"], config["mm_patch_merge_type"]) == ("anyres", "spatial_unpad")
        assert config["image_grid_pinpoints"][0] == [48, 24]  # [1, 2] tiles high and wide here
        assert tensors["model.image_newline"].shape == (32,)
    else:
        assert (config["image_aspect_ratio"], config["mm_patch_merge_type"]) == ("pad", "flat")
    if language == "Mistral":
        assert config["sliding_window"] is None
    assert any("--conv-mode vicuna_v1" in line for line in told)  # the client would take the name's
    tower = Path(config["mm_vision_tower"])
    assert tower.is_absolute() and tower == folder / "vision_tower"
    images = json.loads((tower / "preprocessor_config.json").read_text())
    assert (images["size"], images["crop_size"]) == ({"shortest_edge": 24}, {"height": 24, "width": 24})
    _, report = CLIPVisionModel.from_pretrained(tower, output_loading_info=True)
    assert not any(report.values())


@pytest.mark.parametrize("to", ["hf", "llava"])
def test_runs_are_merged_first(tmp_path, to):
    base = save_base(tmp_path / "base")
    run = save_run(tmp_path / "run", base)
    output = tmp_path / "llava-v1.5-merged"
    export(run, output, to, dtype="float32")
    assert torch.allclose(
        logits(load_model(output, device="cpu")), logits(load_model(run, device="cpu")), atol=1e-4
    )


@pytest.mark.parametrize("case", DAMAGE)
def test_damage_writes_nothing(tiny_model_dir, tmp_path, case, capfd):
    folder, _ = save_original(tiny_model_dir, tmp_path / "model")
    damage, line = DAMAGE[case]
    damage(folder)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(InputError, match=line) as told:
        export(folder, tmp_path / "out", "hf")
    assert "\n" not in str(told.value)
    assert sorted(tmp_path.iterdir()) == before
    assert "payload ran" not in capfd.readouterr().out


def test_what_does_not_fit_is_refused(tiny_model_dir, tmp_path):
    onevision = save_family(tiny_model_dir, tmp_path / "onevision", "llava_onevision-qwen2")
    mistral = save_family(tiny_model_dir, tmp_path / "m", "llava_next-mistral")
    bare, other, narrow = (tmp_path / name for name in ("bare", "other", "narrow"))
    for folder in (bare, other, narrow):
        shutil.copytree(tiny_model_dir, folder)
    (bare / "tokenizer.model").unlink()
    config = json.loads((other / "config.json").read_text())
    config["text_config"]["rope_parameters"] |= {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 1024,
    }
    (other / "config.json").write_text(json.dumps(config))
    large = load_file(narrow / "model.safetensors")
    save_file({name: value.float() * 1e6 for name, value in large.items()}, narrow / "model.safetensors")
    out = tmp_path / "llava-v1-out"
    taken = tmp_path / "llava-v1-taken"
    taken.mkdir()
    cases = [
        (onevision, out, "llava", {}, "cannot hold this model: it is a llava_onevision"),
        (tiny_model_dir, tmp_path / "insulators", "llava", {}, "'insulators' must contain 'llava'"),
        (tiny_model_dir, tmp_path / "llava-mine", "llava", {}, "must contain 'v1'; e.g. .*llava-v1.5-mine"),
        (tiny_model_dir, tmp_path / "llava-v1-mistral", "llava", {}, "must not contain 'mistral'"),
        (mistral, out, "llava", {}, "must contain 'mistral'"),
        (bare, out, "llava", {}, "needs tokenizer.model"),
        (other, out, "llava", {}, "rope llama3"),
        (narrow, out, "llava", {"dtype": "float16"}, "does not fit float16"),
        (tiny_model_dir, out, "hf", {}, "in that format already"),
        (tiny_model_dir, out, "llava", {"model_base": "x"}, "takes no --model-base"),
        (tiny_model_dir, taken, "llava", {}, "exists already; name another folder or pass --overwrite"),
        (tiny_model_dir, taken, "llava", {"overwrite": True}, "not a model folder and is not overwritten"),
        (tmp_path / "absent", out, "hf", {}, "no such model folder"),
    ]
    before = sorted(tmp_path.iterdir())
    for source, output, to, settings, message in cases:
        with pytest.raises(InputError, match=message) as told:
            export(source, output, to, **settings)
        assert "\n" not in str(told.value)
        assert sorted(tmp_path.iterdir()) == before and not list(taken.iterdir())


@pytest.mark.slow
def test_the_command(repo, tiny_model_dir, tmp_path):
    output = tmp_path / "llava-v1.5-tiny"
    flags = ("--format", "llava", "--model-path", str(tiny_model_dir), "--output", str(output))
    script = [sys.executable, "scripts/export.py", *flags, "--dtype", "bfloat16", "--max-shard-size", "1MB"]
    done = subprocess.run(script, cwd=repo, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert f"wrote {output}" in done.stdout and "note: " in done.stdout
    assert {tensor.dtype for tensor in open_weights(output).values()} == {torch.bfloat16}
    assert (output / "model.safetensors.index.json").is_file()
    again = run_here(export_command, *flags)
    assert again.returncode == 2
    assert again.stderr == f"error: {output} exists already; name another folder or pass --overwrite\n"
    assert run_here(export_command, *flags, "--overwrite").returncode == 0
    assert {tensor.dtype for tensor in open_weights(output).values()} == {torch.float16}
    assert not list(tmp_path.glob(".*"))
    wrong = run_here(export_command, *flags, "--max-shard-size", "many")
    assert (wrong.returncode, wrong.stderr) == (2, "error: 'many' is no size; write it like 5GB or 500MB\n")


def test_models_in_several_types_are_not_rounded_silently(tiny_model_dir, tmp_path):
    first = save_family(tiny_model_dir, tmp_path / "first", "llava-llama", dtype=torch.bfloat16)
    tensors = load_file(first / "model.safetensors")
    tensors["language_model.model.norm.weight"] = torch.full((32,), 1.0001)
    save_file(tensors, first / "model.safetensors", {"format": "pt"})
    output = tmp_path / "llava-v1"
    with pytest.raises(InputError, match=r"several types, bfloat16 \(.*\), float32 \(model\.lang.*--dtype"):
        export(first, output, "llava")
    assert not output.exists()
    export(first, output, "llava", dtype="float32")
    assert_same(output, first, torch.float32)


def test_a_tower_of_its_own_takes_the_models_type_and_this_is_told(tiny_model_dir, tmp_path):
    """As the released LLaVA-1.5, in float16, and its CLIP, in float32."""
    first, _ = save_original(tiny_model_dir, tmp_path / "first", dtype=torch.float16)
    path = first / "tower" / "pytorch_model.bin"
    tower = torch.load(path)
    torch.save({name: value.float() for name, value in tower.items()}, path)
    told = export(first, tmp_path / "hub", "hf")
    assert told == ["the vision tower's weights, stored in another type, become float16 as the others"]
    assert {tensor.dtype for tensor in open_weights(tmp_path / "hub").values()} == {torch.float16}


def test_a_disk_without_room_is_one_line(tiny_model_dir, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("llava.export.writers.write_json", full)
    with pytest.raises(InputError, match=r"llava-v1 is not written: .*No space left on device"):
        export(tiny_model_dir, tmp_path / "llava-v1", "llava")
    assert list(tmp_path.iterdir()) == []
