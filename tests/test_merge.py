"""The merged folder answers as the adapter does, in plain transformers, and nothing is written by halves."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_models import save_base, save_run
from transformers import AutoProcessor, LlavaForConditionalGeneration

from llava.errors import InputError
from llava.model.builder import load_model
from llava.model.merge import merge

# float32 sums of other order through 5 layers; logits here are of size 1 to 3
BOUND = 1e-5


def inputs(loaded):
    ids = torch.tensor([loaded.processor.encode_prompt([("human", "<image>\nWhat is it?")])])
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 150, 3), dtype=np.uint8))
    return {"input_ids": ids, "pixel_values": loaded.processor.pixels(picture).patches}


@pytest.mark.parametrize(("vision", "projector"), [(True, True), (False, True), (True, False)])
def test_merged_logits_equal_the_adapters(tmp_path, vision, projector):
    base = save_base(tmp_path / "base")
    run = save_run(tmp_path / "run", base, vision=vision, projector=projector)
    merge(run, tmp_path / "merged")
    adapted, plain = load_model(run, device="cpu"), load_model(base, device="cpu")
    merged = LlavaForConditionalGeneration.from_pretrained(str(tmp_path / "merged"), dtype=torch.float32)
    with torch.no_grad():
        expected = adapted.model(**inputs(adapted)).logits
        assert (merged(**inputs(adapted)).logits - expected).abs().max() < BOUND
        assert (plain.model(**inputs(adapted)).logits - expected).abs().max() > 0.1  # it does something


@pytest.mark.parametrize(
    "variant",
    [{"use_rslora": True}, {"use_dora": True}, {"use_rslora": True, "use_dora": True, "dropout": 0.1}],
    ids=lambda variant: "+".join(variant),
)
def test_merged_logits_equal_those_of_the_variants(tmp_path, variant):
    """rank 4, alpha 8: rsLoRA's scale is twice LoRA's, and DoRA's rows are not W + B A's."""
    base = save_base(tmp_path / "base")
    run = save_run(tmp_path / "run", base, **variant)
    plain = save_run(tmp_path / "plain", base)
    merge(run, tmp_path / "merged")
    adapted, lora = load_model(run, device="cpu"), load_model(plain, device="cpu")
    merged = LlavaForConditionalGeneration.from_pretrained(str(tmp_path / "merged"), dtype=torch.float32)
    with torch.no_grad():
        expected = adapted.model(**inputs(adapted)).logits
        assert (merged(**inputs(adapted)).logits - expected).abs().max() < BOUND
        assert (lora.model(**inputs(adapted)).logits - expected).abs().max() > 0.02


@pytest.mark.parametrize(("bits", "bound"), [(4, BOUND), (8, 0.05)])
@pytest.mark.parametrize("variant", [{}, {"use_dora": True}], ids=["lora", "dora"])
def test_a_run_on_a_quantised_base_merges_into_what_it_was_trained_on(repo, tmp_path, bits, bound, variant):
    """8 bits round the activations too, so the sums differ a little; the whole base is further off."""
    pytest.importorskip("bitsandbytes", reason="needs bitsandbytes: pip install 'llava-inspect[quant]'")
    base = save_base(tmp_path / "base")
    run = save_run(tmp_path / "run", base, bits=bits, **variant)
    whole = save_run(tmp_path / "whole", base, **variant)
    command = [sys.executable, str(repo / "scripts" / "merge_lora.py"), "--model-path", str(run)]
    done = subprocess.run(
        [*command, "--save-model-path", str(tmp_path / "merged")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert f"the adapter was trained on a base quantised to {bits} bits" in done.stdout
    adapted, other = load_model(run, device="cpu"), load_model(whole, device="cpu")
    assert adapted.model.lm_head.weight.dtype == torch.float32
    merged = LlavaForConditionalGeneration.from_pretrained(str(tmp_path / "merged"), dtype=torch.float32)
    with torch.no_grad():
        expected = adapted.model(**inputs(adapted)).logits
        difference = (merged(**inputs(adapted)).logits - expected).abs().max()
        assert difference < bound
        assert (other.model(**inputs(adapted)).logits - expected).abs().max() > (2 * difference)


def test_half_precision_base_is_summed_in_float32(tmp_path):
    base = save_base(tmp_path / "base", dtype=torch.float16)
    run = save_run(tmp_path / "run", base)
    merge(run, tmp_path / "float32", dtype="float32")
    merge(run, tmp_path / "own")
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


def test_merged_folder_is_complete_for_plain_transformers(tmp_path):
    base = save_base(tmp_path / "base")
    run = save_run(tmp_path / "run", base)
    merge(run, tmp_path / "merged")
    assert {path.name for path in (tmp_path / "merged").iterdir()} == {
        "README.md",
        "chat_template.jinja",
        "config.json",
        "generation_config.json",
        "model.safetensors",
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
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 150, 3), dtype=np.uint8))
    turns = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is it?"}]}]
    prompt = processor.apply_chat_template(turns, add_generation_prompt=True)
    theirs = processor(images=picture, text=prompt, return_tensors="pt")
    ours = inputs(loaded)
    assert torch.equal(theirs["input_ids"], ours["input_ids"])
    assert torch.equal(theirs["pixel_values"], ours["pixel_values"])


def test_existing_output_is_kept_unless_overwritten(tmp_path):
    base = save_base(tmp_path / "base")
    run = save_run(tmp_path / "run", base)
    merge(run, tmp_path / "merged")
    (tmp_path / "merged" / "stale").touch()
    with pytest.raises(InputError, match="exists already"):
        merge(run, tmp_path / "merged")
    merge(run, tmp_path / "merged", overwrite=True)
    assert not (tmp_path / "merged" / "stale").exists()
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "thesis.txt").touch()
    with pytest.raises(InputError, match="is not a model folder"):
        merge(run, tmp_path / "precious", overwrite=True)
    with pytest.raises(InputError, match="which is read"):
        merge(run, base, overwrite=True)


def test_failure_leaves_nothing(tmp_path):
    base = save_base(tmp_path / "base")
    run = save_run(tmp_path / "run", base)
    (run / "adapter_model.safetensors").write_bytes(b"short")
    with pytest.raises(InputError, match="cut short or damaged"):
        merge(run, tmp_path / "merged")
    with pytest.raises(InputError, match=r"no run.json"):
        merge(base, tmp_path / "merged")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base", "run"]


def test_overflow_is_refused(tmp_path):
    base = save_base(tmp_path / "base")
    run = save_run(tmp_path / "run", base)
    config = json.loads((run / "adapter_config.json").read_text())
    (run / "adapter_config.json").write_text(json.dumps(config | {"lora_alpha": 1e9}))
    with pytest.raises(InputError, match=r"does not fit float16.*bfloat16"):
        merge(run, tmp_path / "merged", dtype="float16")
    assert not (tmp_path / "merged").exists()


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
    again = subprocess.run(command, capture_output=True, text=True, check=False)
    assert again.returncode == 2
    assert again.stderr.startswith("error: ") and again.stderr.count("\n") == 1
