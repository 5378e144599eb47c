"""The merged folder answers as the adapter does, in plain transformers, and nothing is written by halves."""

import json
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import AutoProcessor, LlavaForConditionalGeneration

from llava.common.errors import InputError
from llava.export.merge import merge_adapters
from llava.model.builder import load_model
from llava.model.formats import name_in_memory
from llava_inspect.merge import main as merge_command
from tests.support.commands import run_here
from tests.support.family_models import save_family
from tests.support.tiny_models import save_base, save_run
from tests.support.warm import run_warm

# float32 sums of other order through 5 layers; of the largest logit, which is 1 to 3 in small models
BOUND = 1e-5


def inputs(loaded):
    """A question about a wide picture: several tiles for LLaVA-1.6 and OneVision."""
    ids = torch.tensor([loaded.processor.encode_prompt([("human", "<image>\nWhat is it?")], [(60, 150)])])
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 150, 3), dtype=np.uint8))
    pixels = loaded.processor.vision.inputs([loaded.processor.pixels(image, alone=True)])
    return {"input_ids": ids, **pixels}


def logits(folder, given=None):
    """In float32, of the question as `folder` itself prepares it unless its inputs are `given`."""
    loaded = load_model(folder, device="cpu")
    with torch.no_grad():
        return loaded.model(**(given or inputs(loaded))).logits


@pytest.mark.parametrize(("vision", "projector"), [(True, True), (False, True), (True, False)])
def test_merged_logits_equal_the_adapters(tmp_path, vision, projector):
    base = save_base(tmp_path / "base")
    run = save_run(tmp_path / "run", base, vision=vision, projector=projector)
    merge_adapters(run, tmp_path / "merged")
    adapted, plain = load_model(run, device="cpu"), load_model(base, device="cpu")
    merged = LlavaForConditionalGeneration.from_pretrained(str(tmp_path / "merged"), dtype=torch.float32)
    with torch.no_grad():
        expected = adapted.model(**inputs(adapted)).logits
        assert (merged(**inputs(adapted)).logits - expected).abs().max() < BOUND
        assert (plain.model(**inputs(adapted)).logits - expected).abs().max() > 0.1  # it does something


FAMILIES = ["llava-llama", "llava_next-mistral", "llava_onevision-qwen2"]
VARIANTS = {
    "lora": {},
    "rslora": {"use_rslora": True},
    "dora": {"use_dora": True, "dropout": 0.1},
    "rslora and dora": {"use_rslora": True, "use_dora": True},
    "4 bits": {"bits": 4},
    "4 bits and dora": {"bits": 4, "use_dora": True},
    "8 bits": {"bits": 8},
}


@pytest.fixture(scope="module")
def bases(tiny_model_dir, tmp_path_factory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("bases")
    return {name: save_family(tiny_model_dir, place / name, name, scale=0.2) for name in FAMILIES}


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("family", FAMILIES)
def test_merged_logits_equal_the_adapters_in_each_family(bases, tmp_path, family, variant):
    """Adapters on both towers, and the projector. 8 bits round the activations too, which no weight can hold:
    there the merged model is only nearer than the whole base is."""
    settings = VARIANTS[variant]
    if "bits" in settings:
        pytest.importorskip("bitsandbytes", reason="needs bitsandbytes: scripts/setup.sh quant")
    run = save_run(tmp_path / "run", bases[family], **settings)
    merge_adapters(run, tmp_path / "merged")
    adapted, merged, base = (logits(path) for path in (run, tmp_path / "merged", bases[family]))
    largest = adapted.abs().max()
    bound = 0.05 if settings.get("bits") == 8 else BOUND
    assert (merged - adapted).abs().max() < bound * largest
    assert (base - adapted).abs().max() > 0.05 * largest, "the adapter does something"
    if settings:  # and what it does is not what a plain LoRA of the same A and B does
        merge_adapters(save_run(tmp_path / "lora", bases[family]), tmp_path / "other")
        assert (logits(tmp_path / "other") - adapted).abs().max() > 2 * (merged - adapted).abs().max()


def test_the_command_says_that_the_base_was_quantised(tmp_path):
    pytest.importorskip("bitsandbytes", reason="needs bitsandbytes: scripts/setup.sh quant")
    base = save_base(tmp_path / "base")
    run = save_run(tmp_path / "run", base, bits=4)
    done = run_here(merge_command, "--model-path", run, "--save-model-path", tmp_path / "merged")
    assert done.returncode == 0, done.stderr
    said = "the adapter was trained on a base quantised to 4 bits"
    assert said in done.stdout and said in (tmp_path / "merged" / "README.md").read_text().replace(
        "The", "the"
    )
    assert load_model(run, device="cpu").model.lm_head.weight.dtype == torch.float32


def test_several_adapters_are_mixed_by_weight(tmp_path):
    """W0 + sum of w_i (W_i - W0), with the projector and DoRA's rows in W_i; each written as float32."""
    base = save_base(tmp_path / "base")
    runs = [
        save_run(tmp_path / "a", base, use_dora=True),
        save_run(tmp_path / "b", base, vision=False, seed=2),
    ]
    merge_adapters(runs, tmp_path / "mixed", weights=[0.75, -0.5])
    merge_adapters(runs[0], tmp_path / "half", weights=[0.5])
    for name, run in zip("xy", runs, strict=True):
        merge_adapters(run, tmp_path / name)
    plain, a, b, mixed, half = (
        {
            name_in_memory(key): value
            for key, value in load_file(tmp_path / name / "model.safetensors").items()
        }
        for name in ("base", "x", "y", "mixed", "half")
    )
    for name, weight in plain.items():
        expected = weight + 0.75 * (a[name] - weight) - 0.5 * (b[name] - weight)
        torch.testing.assert_close(mixed[name], expected, atol=1e-6, rtol=0)
        torch.testing.assert_close(half[name], weight + 0.5 * (a[name] - weight), atol=1e-6, rtol=0)
    assert sum(not torch.equal(a[name], b[name]) for name in plain) > 10
    assert ", weight 0.5:" in (tmp_path / "half" / "README.md").read_text()


def test_adapters_that_cannot_be_one_model_are_refused(tmp_path):
    base, other = save_base(tmp_path / "base"), save_base(tmp_path / "other", seed=5)
    runs = [save_run(tmp_path / name, on) for name, on in (("a", base), ("b", base), ("c", other))]
    quantised = save_run(tmp_path / "d", base, bits=4)
    for paths, weights, message in (
        (runs[:2], None, "2 adapters and 0 weights"),
        (runs[:2], [1.0], "2 adapters and 1 weights"),
        (runs[:2], [1.0, float("nan")], "each must be a finite number"),
        ([runs[0], runs[2]], [1.0, 1.0], "only adapters of one base are merged"),
        ([runs[0], quantised], [1.0, 1.0], "differ in the conversation template or the bits"),
    ):
        with pytest.raises(InputError, match=message):
            merge_adapters(paths, tmp_path / "merged", weights=weights)
    assert not (tmp_path / "merged").exists()


def test_shards_hold_the_same_model(tmp_path):
    base = save_base(tmp_path / "base")
    run = save_run(tmp_path / "run", base)
    merge_adapters(run, tmp_path / "one")
    merge_adapters(run, tmp_path / "many", max_shard_size=60_000)
    shards = sorted((tmp_path / "many").glob("model-*-of-*.safetensors"))
    assert len(shards) > 3
    together = {name: tensor for shard in shards for name, tensor in load_file(shard).items()}
    one = load_file(tmp_path / "one" / "model.safetensors")
    assert one.keys() == together.keys()
    assert all(torch.equal(one[name], together[name]) for name in one)
    assert torch.equal(logits(tmp_path / "many"), logits(tmp_path / "one"))
    # whoever may read the config may read the weights
    assert {path.stat().st_mode for path in shards} == {(tmp_path / "many" / "config.json").stat().st_mode}


def test_the_config_is_one_that_transformers_4_reads(bases, tmp_path):
    """It knows the base of the rotary positions as rope_theta alone, and would take 10000."""
    base = tmp_path / "base"
    base.mkdir()
    for path in bases["llava_onevision-qwen2"].iterdir():
        (base / path.name).write_bytes(path.read_bytes())
    config = json.loads((base / "config.json").read_text())
    config["text_config"]["rope_parameters"] = {"rope_type": "default", "rope_theta": 1e6}
    (base / "config.json").write_text(json.dumps(config))
    merge_adapters(save_run(tmp_path / "run", base), tmp_path / "merged", dtype="bfloat16")
    written = json.loads((tmp_path / "merged" / "config.json").read_text())
    assert written["text_config"]["rope_theta"] == 1e6
    assert written["torch_dtype"] == written["dtype"] == "bfloat16"
    assert load_model(tmp_path / "merged").model.config.text_config.rope_parameters["rope_theta"] == 1e6


def test_a_head_that_is_the_embedding(bases, tmp_path):
    """LLaVA-OneVision-0.5B ties them: an adapter elsewhere merges, one on either would change both."""
    base = tmp_path / "base"
    base.mkdir()
    for path in bases["llava_onevision-qwen2"].iterdir():
        (base / path.name).write_bytes(path.read_bytes())
    config = json.loads((base / "config.json").read_text())
    config["tie_word_embeddings"] = config["text_config"]["tie_word_embeddings"] = True
    (base / "config.json").write_text(json.dumps(config))
    tensors = load_file(base / "model.safetensors")
    [head] = [name for name in tensors if name.endswith("lm_head.weight")]
    del tensors[head]
    save_file(tensors, base / "model.safetensors", {"format": "pt"})
    run = save_run(tmp_path / "run", base)
    merge_adapters(run, tmp_path / "merged")
    assert head not in load_file(tmp_path / "merged" / "model.safetensors")
    adapted = logits(run)
    assert (logits(tmp_path / "merged") - adapted).abs().max() < BOUND * adapted.abs().max()
    [embedding] = [name for name in tensors if name.endswith("embed_tokens.weight")]
    adapter = load_file(run / "adapter_model.safetensors")
    adapter["base_model.model.model.language_model.embed_tokens.weight"] = tensors[embedding] + 1
    save_file(adapter, run / "adapter_model.safetensors")
    with pytest.raises(InputError, match="ties its LM head to its embeddings"):
        merge_adapters(run, tmp_path / "tied")
    assert not (tmp_path / "tied").exists()


def test_half_precision_base_is_summed_in_float32(tmp_path):
    base = save_base(tmp_path / "base", dtype=torch.float16)
    run = save_run(tmp_path / "run", base)
    merge_adapters(run, tmp_path / "float32", dtype="float32")
    merge_adapters(run, tmp_path / "own")
    wide = LlavaForConditionalGeneration.from_pretrained(str(tmp_path / "float32"))
    own = LlavaForConditionalGeneration.from_pretrained(str(tmp_path / "own"))
    assert wide.dtype == torch.float32
    assert own.dtype == torch.float16
    adapted = load_model(run, device="cpu")
    with torch.no_grad():
        difference = wide(**inputs(adapted)).logits - adapted.model(**inputs(adapted)).logits
    assert difference.abs().max() < BOUND
    # rounded once, at the end: the float16 weights are the float32 sums' nearest
    for name, value in own.state_dict().items():
        assert torch.equal(value, wide.state_dict()[name].half()), name


def test_a_base_in_several_types_is_not_rounded_silently(tmp_path):
    base = save_base(tmp_path / "base")
    path = base / "model.safetensors"
    tensors = load_file(path)
    name = next(name for name in tensors if "norm" in name)
    save_file(tensors | {name: tensors[name].half()}, path, metadata={"format": "pt"})
    run = save_run(tmp_path / "run", base)
    with pytest.raises(InputError, match=r"in several types, .*; choose with --dtype"):
        merge_adapters(run, tmp_path / "merged")
    assert not (tmp_path / "merged").exists()
    merge_adapters(run, tmp_path / "merged", dtype="float32")
    assert {value.dtype for value in load_file(tmp_path / "merged" / path.name).values()} == {torch.float32}


def test_merged_folder_is_complete_for_plain_transformers(tmp_path):
    base = save_base(tmp_path / "base")
    run = save_run(tmp_path / "run", base)
    merge_adapters(run, tmp_path / "merged")
    assert {path.name for path in (tmp_path / "merged").iterdir()} == {
        "README.md",
        "chat_template.jinja",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "preprocessor_config.json",
        "processor_config.json",
        "tokenizer.json",
        "tokenizer.model",
        "tokenizer_config.json",
    }
    card = (tmp_path / "merged" / "README.md").read_text()
    assert str(base) in card
    assert "step 3" in card
    loaded = load_model(tmp_path / "merged", device="cpu")
    assert loaded.template.name == "vicuna_v1"
    # transformers' own processor gives what the model was trained on: the same ids, padded pictures
    processor = AutoProcessor.from_pretrained(str(tmp_path / "merged"))
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 150, 3), dtype=np.uint8))
    turns = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is it?"}]}]
    prompt = processor.apply_chat_template(turns, add_generation_prompt=True)
    theirs = processor(images=image, text=prompt, return_tensors="pt")
    ours = inputs(loaded)
    assert torch.equal(theirs["input_ids"], ours["input_ids"])
    assert torch.equal(theirs["pixel_values"], ours["pixel_values"])


def test_existing_output_is_kept_unless_overwritten(tmp_path):
    base = save_base(tmp_path / "base")
    run = save_run(tmp_path / "run", base)
    merge_adapters(run, tmp_path / "merged")
    (tmp_path / "merged" / "stale").touch()
    with pytest.raises(InputError, match="exists already"):
        merge_adapters(run, tmp_path / "merged")
    merge_adapters(run, tmp_path / "merged", overwrite=True)
    assert not (tmp_path / "merged" / "stale").exists()
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "thesis.txt").touch()
    with pytest.raises(InputError, match="is not a model folder"):
        merge_adapters(run, tmp_path / "precious", overwrite=True)
    with pytest.raises(InputError, match="which is read"):
        merge_adapters(run, base, overwrite=True)
    (run / "config.json").write_text("{}")  # an adapter is none either, whatever lies beside it
    for folder in (run, save_run(tmp_path / "another", base)):
        with pytest.raises(InputError, match="is not a model folder"):
            merge_adapters(run, folder, overwrite=True)


def test_failure_leaves_nothing(tmp_path):
    base = save_base(tmp_path / "base")
    run = save_run(tmp_path / "run", base)
    (run / "adapter_model.safetensors").write_bytes(b"short")
    with pytest.raises(InputError, match="cut short or damaged"):
        merge_adapters(run, tmp_path / "merged")
    with pytest.raises(InputError, match=r"no run.json"):
        merge_adapters(base, tmp_path / "merged")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base", "run"]


KILLED = """
import os, signal, sys
from pathlib import Path
import llava.model.shards as shards
from llava.export.merge import merge_adapters

write = shards.write_tensors
def kill_at_the_third(path, tensors):
    if path.name == "shard-3":
        os.kill(os.getpid(), signal.SIGKILL)
    write(path, tensors)
shards.write_tensors = kill_at_the_third
merge_adapters(sys.argv[1], Path(sys.argv[2]), max_shard_size=60_000, overwrite=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize("earlier", [False, True], ids=["new", "over an earlier model"])
def test_a_killed_merge_leaves_nothing_that_looks_finished(tmp_path, earlier):
    base = save_base(tmp_path / "base")
    run, output = save_run(tmp_path / "run", base), tmp_path / "out" / "merged"
    if earlier:
        merge_adapters(save_run(tmp_path / "first", base, seed=3), output)
        before = {path.name: path.read_bytes() for path in output.iterdir()}
    done = run_warm("-c", KILLED, run, output)
    assert done.returncode == -signal.SIGKILL, done.stderr
    if earlier:
        assert {path.name: path.read_bytes() for path in output.iterdir()} == before
    [left] = [path for path in output.parent.iterdir() if path != output]
    assert left.name.startswith(".merged.")
    with pytest.raises(InputError):
        load_model(left, device="cpu")
    told = merge_adapters(run, output, overwrite=earlier)
    assert any(str(left) in line and "was killed" in line for line in told)
    adapted = logits(run)
    assert (logits(output) - adapted).abs().max() < BOUND * adapted.abs().max()
    assert {path.name for path in output.parent.iterdir()} == {"merged", left.name}


def test_a_full_disk_is_told_before_anything_is_written(tmp_path, monkeypatch):
    base = save_base(tmp_path / "base")
    run = save_run(tmp_path / "run", base)
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=100_000))
    with pytest.raises(InputError, match=r"the model takes 0\.0 GB and .* has 0\.0 GB free"):
        merge_adapters(run, tmp_path / "new" / "merged")
    assert not (tmp_path / "new").exists()


def test_a_disk_that_fails_while_merging_is_one_line(tmp_path, monkeypatch):
    run = save_run(tmp_path / "run", save_base(tmp_path / "base"))

    def fail(path, tensors):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("llava.model.shards.write_tensors", fail)
    with pytest.raises(InputError, match=r"merged is not written: .*No space left on device"):
        merge_adapters(run, tmp_path / "merged")
    assert {path.name for path in tmp_path.iterdir()} == {"base", "run"}


def test_numbers_that_are_none_are_told_where_they_come_from(tmp_path):
    base = save_base(tmp_path / "base")
    run = save_run(tmp_path / "run", base)
    path = run / "adapter_model.safetensors"
    adapter = load_file(path)
    name = next(name for name in adapter if "q_proj.lora_B" in name)
    adapter[name][0, 0] = float("nan")
    save_file(adapter, path)
    with pytest.raises(
        InputError, match=r"q_proj\.weight is no finite number after merging: training diverged"
    ):
        merge_adapters(run, tmp_path / "merged")
    tensors = load_file(base / "model.safetensors")
    tensors[next(iter(tensors))].view(-1)[0] = float("inf")
    save_file(tensors, base / "model.safetensors", {"format": "pt"})
    broken = save_run(tmp_path / "broken", base)
    with pytest.raises(InputError, match="the base is damaged, fetch it again"):
        merge_adapters(broken, tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


def test_overflow_is_refused(tmp_path):
    base = save_base(tmp_path / "base")
    run = save_run(tmp_path / "run", base)
    config = json.loads((run / "adapter_config.json").read_text())
    (run / "adapter_config.json").write_text(json.dumps(config | {"lora_alpha": 1e9}))
    with pytest.raises(InputError, match=r"does not fit float16.*bfloat16"):
        merge_adapters(run, tmp_path / "merged", dtype="float16")
    assert not (tmp_path / "merged").exists()


@pytest.mark.slow
def test_command(repo, tmp_path):
    base = save_base(tmp_path / "base")
    run = save_run(tmp_path / "run", base)
    script = [sys.executable, str(repo / "scripts" / "merge_lora.py")]
    command = [*script, "--model-path", str(run), "--save-model-path", str(tmp_path / "out")]
    done = subprocess.run([*command, "--dtype", "bfloat16"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (
        LlavaForConditionalGeneration.from_pretrained(str(tmp_path / "out"), dtype="auto").dtype
        == torch.bfloat16
    )
    again = run_here(merge_command, *command[2:])
    assert again.returncode == 2
    assert again.stderr.startswith("error: ") and again.stderr.count("\n") == 1
