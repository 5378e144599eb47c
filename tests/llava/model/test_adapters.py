"""Adapters of other tools answer on our base as they did on theirs; one that does not fit is refused."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import PeftModel
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageTextToText

from llava.common.errors import InputError
from llava.export.merge import merge_adapters
from llava.model.adapters import apply_adapter
from llava.model.builder import LoadedModel, load_model
from llava.model.folder import open_model_folder
from llava.model.formats import NON_LORA_WEIGHTS, SPELLINGS
from llava_inspect.merge import main as merge_command
from tests.support.commands import run_here
from tests.support.family_models import FAMILIES, save_family
from tests.support.original_folders import save_original
from tests.support.other_adapters import change, original_lora, other_tools_adapter, trained_projector
from tests.support.tiny_models import save_base

PROJECTOR = "model.multi_modal_projector."
# float32 sums of other order through a few layers
BOUND = 1e-5


def logits(model, loaded: LoadedModel) -> torch.Tensor:
    """Of a question about a wide picture, prepared as `loaded` does."""
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 150, 3), dtype=np.uint8))
    ids = loaded.processor.encode_prompt([("human", "<image>\nWhat is it?")], [(60, 150)])
    pixels = loaded.processor.vision.inputs([loaded.processor.pixels(image, alone=True)])
    with torch.no_grad():
        return model(input_ids=torch.tensor([ids]), **pixels).logits


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    return save_base(tmp_path_factory.mktemp("adapters") / "base")


VARIANTS = {
    "list": {},
    "regex": {"target_modules": r"^(?!.*vision_tower).*(?:q_proj|up_proj).*"},
    "projector saved": {"modules_to_save": ["multi_modal_projector"]},
    "projector adapted": {"target_modules": ["o_proj", "linear_1", "linear_2"]},
    "rslora": {"use_rslora": True},
    "dora": {"use_dora": True},
    "ranks": {"rank_pattern": {"q_proj": 2}, "alpha_pattern": {"layers.1.mlp.down_proj": 9}},
    "layers": {"layers_to_transform": [1]},
    "head": {"target_modules": ["q_proj", "lm_head"]},
}


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_logits_are_those_that_peft_gives(base, tmp_path, spelling, variant):
    theirs = other_tools_adapter(base, tmp_path / "adapter", spelling, **VARIANTS[variant])
    require_same(base, tmp_path / "adapter", theirs)


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("spelling", ["transformers 4", "transformers 5"])
def test_each_family(tmp_path, tiny_model_dir, family, spelling):
    base = save_family(tiny_model_dir, tmp_path / "base", family, scale=0.2)
    theirs = other_tools_adapter(
        base, tmp_path / "adapter", spelling, modules_to_save=["multi_modal_projector"]
    )
    require_same(base, tmp_path / "adapter", theirs)


# what LLaMA-Factory, ms-swift and TRL write as targets, by the release of transformers they ran with
TARGETS = {
    "LLaMA-Factory": ("transformers 5", None),
    "LLaMA-Factory, before 4.52": ("transformers 4", None),
    "ms-swift": ("transformers 5", r"^(model\.language_model(?=\.).*\.(q_proj|v_proj|down_proj))$"),
    "ms-swift, before 4.52": ("transformers 4", r"^(language_model(?=\.).*\.(q_proj|v_proj|down_proj))$"),
    "TRL": ("transformers 5", "all-linear"),
}
BESIDE = (
    "README.md", "additional_config.json", "args.json", "chat_template.jinja", "trainer_state.json",
    "training_args.bin", "optimizer.pt", "scheduler.pt", "rng_state.pth", "training_loss.png",
    "trainer_log.jsonl", "all_results.json", "tokenizer.json", "tokenizer_config.json",
    "special_tokens_map.json", "preprocessor_config.json", "processor_config.json",
    "checkpoint-3/adapter_model.safetensors",
)  # fmt: skip
"""Files that these tools leave in an adapter's folder; none of them says anything of the weights."""


@pytest.mark.parametrize("tool", TARGETS)
def test_folders_as_the_tools_leave_them(base, tmp_path, tool):
    """LLaMA-Factory lists the full names of layers, which PEFT shortens where they are twenty or more."""
    spelling, pattern = TARGETS[tool]
    folder = tmp_path / "adapter"
    if pattern is None:
        model = AutoModelForImageTextToText.from_pretrained(str(base))
        targets: str | list[str] = [
            name
            for name, module in model.named_modules()
            if isinstance(module, torch.nn.Linear) and name.endswith("proj")  # of both towers
        ]
        assert len(targets) >= 20
    else:
        targets = (
            "all-linear" if pattern == "all-linear" else r"model\.language_model\..*(q_proj|v_proj|down_proj)"
        )
    theirs = other_tools_adapter(base, folder, spelling, target_modules=targets)
    if pattern is not None:
        change(folder, target_modules=pattern)
    for name in BESIDE:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"not for us")
    require_same(base, folder, theirs)
    merge_adapters(folder, tmp_path / "merged")
    loaded = load_model(tmp_path / "merged", device="cpu")
    expected = logits(theirs, loaded)
    assert (logits(loaded.model, loaded) - expected).abs().max() < BOUND * expected.abs().max()
    if pattern != "all-linear":
        drop(folder, "layers.1.self_attn.q_proj.lora_A")
        with pytest.raises(InputError, match="missing"):
            load_model(folder, device="cpu")


def require_same(base: Path, folder: Path, theirs: PeftModel) -> None:
    loaded = load_model(base, device="cpu")
    expected, plain = logits(theirs, loaded), logits(loaded.model, loaded)
    assert (plain - expected).abs().max() > 0.02, "the adapter does something"
    adapted = apply_adapter(loaded.model, open_model_folder(folder)).eval()
    assert (logits(adapted, loaded) - expected).abs().max() < BOUND


@pytest.mark.parametrize("projector", [True, False])
def test_a_lora_folder_of_the_original(base, tmp_path, projector):
    theirs = original_lora(base, tmp_path / "llava-lora", projector=projector)
    require_same(base, tmp_path / "llava-lora", theirs)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["llava-llama", "llava_next-llama"])
def test_a_lora_folder_of_the_original_over_an_original_base(tmp_path, tiny_model_dir, family):
    base, _ = save_original(tiny_model_dir, tmp_path / "llava-v1.5-7b", family, scale=0.2)
    loaded = load_model(base, device="cpu")
    loaded.model.save_pretrained(str(tmp_path / "as hf"))
    theirs = original_lora(tmp_path / "as hf", tmp_path / "lora")
    expected = logits(theirs, loaded)
    adapted = load_model(tmp_path / "lora", base, device="cpu")
    assert adapted.template.name == load_model(base, device="cpu").template.name
    assert (logits(adapted.model, loaded) - expected).abs().max() < BOUND
    for save_format, name in (("hf", "merged"), ("llava", "llava-v1.5-merged")):
        merge_adapters(tmp_path / "lora", tmp_path / name, model_base=base, save_format=save_format)
        again = load_model(tmp_path / name, device="cpu")
        assert again.template.name == adapted.template.name
        assert (logits(again.model, again) - expected).abs().max() < BOUND


def test_a_projector_alone(base, tmp_path):
    loaded = load_model(base, device="cpu")
    trained = trained_projector(loaded.model)
    folder = tmp_path / "pretrain"
    folder.mkdir()
    torch.save({f"model.mm_projector.{name}": value for name, value in trained.items()},
               folder / "mm_projector.bin")  # fmt: skip
    (folder / "config.json").write_text('{"model_type": "llava", "mm_vision_tower": "x"}')
    with pytest.raises(InputError, match="does not say of what; name its base with --model-base"):
        load_model(folder, device="cpu")
    adapted = load_model(folder, base, device="cpu")
    assert torch.equal(logits(adapted.model, loaded), logits(loaded.model, loaded))


def test_the_base_is_found_and_another_name_is_told(base, tmp_path, capsys):
    other_tools_adapter(base, tmp_path / "adapter")
    loaded = load_model(tmp_path / "adapter", device="cpu")  # adapter_config.json says where it is
    assert loaded.template.name == "vicuna_v1"
    assert capsys.readouterr().err == ""
    shutil.copytree(base, tmp_path / "copy")
    moved = load_model(tmp_path / "adapter", tmp_path / "copy", device="cpu")
    assert f"trained on {base}; it is put on {tmp_path / 'copy'}" in capsys.readouterr().err
    assert torch.equal(logits(moved.model, loaded), logits(loaded.model, loaded))
    # a model of the Hub lies in its cache under a commit; that is no other name
    cached = tmp_path / "hub" / "models--llava-hf--llava-1.5-7b-hf" / "snapshots" / "0123"
    shutil.copytree(base, cached)
    change(tmp_path / "adapter", base_model_name_or_path="llava-hf/llava-1.5-7b-hf")
    load_model(tmp_path / "adapter", cached, device="cpu")
    assert "trained on" not in capsys.readouterr().err
    change(tmp_path / "adapter", base_model_name_or_path=str(tmp_path / "gone"))
    with pytest.raises(InputError, match=r"the base of .* is not found.*say where it is with --model-base"):
        load_model(tmp_path / "adapter", device="cpu")


def drop(folder: Path, part: str) -> None:
    path = folder / "adapter_model.safetensors"
    save_file({name: value for name, value in load_file(path).items() if part not in name}, path)


def add(folder: Path, name: str) -> None:
    path = folder / "adapter_model.safetensors"
    save_file(load_file(path) | {name: torch.zeros(2)}, path)


def cut(folder: Path) -> None:
    data = (folder / "adapter_model.safetensors").read_bytes()
    (folder / "adapter_model.safetensors").write_bytes(data[:-100])


class Payload:
    """Would write a file if it were unpickled."""

    def __reduce__(self):
        return (Path.touch, (Path("payload-ran"),))


def poison(folder: Path) -> None:
    (folder / "adapter_model.safetensors").unlink()
    torch.save({"lora": Payload()}, folder / "adapter_model.bin")


DAMAGE = {
    "a layer lost": (lambda f: drop(f, "layers.1.self_attn.q_proj"), r"4 missing: .*layers\.1\..*q_proj"),
    "a half lost": (lambda f: drop(f, "language_model.layers.0.mlp.down_proj.lora_B"), "1 missing: "),
    "the projector lost": (lambda f: drop(f, "projector"), r"4 missing: .*multi_modal_projector\.linear_1"),
    "unknown": (lambda f: add(f, "base_model.model.model.resampler.weight"), "1 unexpected: .*resampler"),
    "a second spelling": (
        lambda f: add(f, "base_model.model.language_model.model.layers.0.self_attn.q_proj.lora_A.weight"),
        "1 unexpected: ",
    ),
    "cut short": (cut, "adapter_model.safetensors: cut short or damaged"),
    "a payload": (poison, "adapter_model.bin: holds pickled objects"),
    "no weights": (lambda f: (f / "adapter_model.safetensors").unlink(), "neither adapter_model.safetensors"),
    "another method": (lambda f: change(f, peft_type="IA3"), "peft_type IA3; only LORA"),
    "another rank": (lambda f: change(f, r=8), "of another shape: "),
    "pissa": (lambda f: change(f, init_lora_weights="pissa_niter_4"), "changed the base's weights"),
    "biases": (lambda f: change(f, bias="all"), "bias: adapters with this setting are not read"),
    "not settings": (lambda f: change(f, r="many"), r"adapter_config.json: r: "),
    "a tuned tower": (lambda f: (f / "vit.safetensors").touch(), "whole tuned vision tower"),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_told_in_a_line_and_nothing_is_written(base, tmp_path, damage, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "adapter"
    other_tools_adapter(base, folder, modules_to_save=["multi_modal_projector"])
    do, message = DAMAGE[damage]
    do(folder)
    with pytest.raises(InputError, match=message) as loading:
        load_model(folder, device="cpu")
    with pytest.raises(InputError, match=message) as merging:
        merge_adapters(folder, tmp_path / "merged")
    assert "\n" not in str(loading.value) + str(merging.value)
    assert [path.name for path in tmp_path.iterdir()] == ["adapter"]


def test_an_adapter_of_another_base(base, tmp_path, tiny_model_dir):
    wider = save_base(tmp_path / "wider", hidden=64)
    other_tools_adapter(wider, tmp_path / "adapter", "transformers 4")
    mistral = save_family(tiny_model_dir, tmp_path / "mistral", "llava_next-mistral")
    for other in (base, mistral):
        with pytest.raises(
            InputError, match=r"does not fit its base; keys .*of another shape: .*where the base"
        ):
            load_model(tmp_path / "adapter", other, device="cpu")
        with pytest.raises(InputError, match="does not fit its base"):
            merge_adapters(tmp_path / "adapter", tmp_path / "merged", model_base=other)
    assert not (tmp_path / "merged").exists()


def test_an_unfinished_checkpoint_of_the_original(base, tmp_path):
    original_lora(base, tmp_path / "checkpoint-40")
    (tmp_path / "checkpoint-40" / NON_LORA_WEIGHTS).unlink()
    with pytest.raises(InputError, match="an intermediate checkpoint is not complete"):
        load_model(tmp_path / "checkpoint-40", device="cpu")


def test_the_command_merges_them_and_refuses_a_payload(base, tmp_path):
    other_tools_adapter(base, tmp_path / "adapter", "transformers 4")
    arguments = ["--model-path", tmp_path / "adapter", "--save-model-path", tmp_path / "merged"]
    done = run_here(merge_command, *arguments)
    assert done.returncode == 0, done.stderr
    expected = logits((loaded := load_model(tmp_path / "adapter", device="cpu")).model, loaded)
    assert (
        logits(load_model(tmp_path / "merged", device="cpu").model, loaded) - expected
    ).abs().max() < BOUND
    poison(tmp_path / "adapter")
    again = run_here(merge_command, *arguments, "--overwrite")
    assert again.returncode == 2
    assert again.stderr.startswith("error: ") and again.stderr.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter", "merged"]
