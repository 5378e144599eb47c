"""Any folder is loaded for what its content says it is, or refused in one line."""

import json
import re
import shutil
from pathlib import Path

import hypothesis
import pytest
import torch
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import load_file
from sentencepiece import SentencePieceProcessor

from llava.common.environment import how_to_install
from llava.common.errors import InputError
from llava.constants import IMAGE_TOKEN_INDEX
from llava.mm_utils import (
    get_model_name_from_path,
    load_image_from_base64,
    process_images,
    tokenizer_image_token,
)
from llava.model import builder, hub
from llava.model.builder import (
    load_model,
    load_pretrained_model,
    make_processor,
)
from llava.model.folder import open_model_folder
from llava.model.run_dir import read_run_info
from tests.support.family_models import save_family
from tests.support.original_folders import save_original, write_weights
from tests.support.tiny_models import save_base, save_run


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return save_base(tmp_path_factory.mktemp("models") / "base")


@pytest.fixture(scope="module")
def run(base, tmp_path_factory):
    return save_run(tmp_path_factory.mktemp("runs") / "run", base)


def logits(loaded):
    ids = torch.tensor([loaded.processor.encode_prompt([("human", "<image>\nWhat is it?")])])
    pixels = loaded.processor.pixels(Image.new("RGB", (90, 60), (200, 30, 30))).patches
    with torch.no_grad():
        return loaded.model(input_ids=ids, pixel_values=pixels).logits


def test_embedded_base_loads_and_answers(tiny_model_dir):
    loaded = load_model(tiny_model_dir, device="cpu")
    assert loaded.template.name == "vicuna_v1"
    assert loaded.context_len == 2048
    assert loaded.processor.vision.token_counts([(10, 20)]) == [144]
    assert loaded.model.dtype == torch.float32
    assert not loaded.model.training
    assert torch.isfinite(logits(loaded)).all()


def test_run_dir_carries_its_adapter(base, run):
    plain, tuned = load_model(base, device="cpu"), load_model(run, device="cpu")
    assert type(tuned.model) is type(plain.model)
    assert not torch.allclose(logits(plain), logits(tuned), atol=1e-2)
    assert not any(parameter.requires_grad for parameter in tuned.model.parameters())


def test_tokens_do_not_depend_on_the_kind_of_folder(base, run):
    """Without config.json beside it, AutoTokenizer reads the same files as another tokenizer."""
    text = "USER: <image>\nWhat? ASSISTANT: A déjà vu.</s>USER: Sure?"
    ids = [load_model(folder, device="cpu").tokenizer(text).input_ids for folder in (base, run)]
    assert ids[0] == ids[1]


def test_ids_are_sentencepieces_own(tiny_model_dir):
    tokenizer = load_model(tiny_model_dir, device="cpu").tokenizer
    pieces = SentencePieceProcessor(model_file=str(tiny_model_dir / "tokenizer.model"))
    for text in [
        "USER: Is there a red ball? ASSISTANT: No.",
        "two  spaces ",
        "naïve 绝缘子 ⚡",
        "a\nb\tc",
        "x",
    ]:
        assert tokenizer(text).input_ids == [tokenizer.bos_token_id, *pieces.encode(text)], text


def test_checkpoint_and_run_load_from_any_folder_name(base, run, tmp_path):
    copy = tmp_path / "odd name" / "checkpoint-3"
    shutil.copytree(run, copy)
    loaded = load_model(copy, device="cpu")
    assert torch.equal(logits(loaded), logits(load_model(run, device="cpu")))
    assert loaded.model_id == "odd name_checkpoint-3"


def test_base_elsewhere_is_named_with_model_base(base, run, tmp_path):
    moved = tmp_path / "moved"
    shutil.copytree(base, moved)
    away = tmp_path / "run"
    shutil.copytree(run, away)
    info = read_run_info(away)
    info.base.path = info.base.name = str(tmp_path / "gone")
    (away / "run.json").write_text(info.model_dump_json())
    with pytest.raises(InputError, match=r"the base of .* is not found.*--model-base"):
        load_model(away, device="cpu")
    assert torch.equal(logits(load_model(away, moved, device="cpu")), logits(load_model(run, device="cpu")))


def test_another_base_is_refused(run, tmp_path):
    other = save_base(tmp_path / "other", seed=5)
    with pytest.raises(InputError, match="holds other weights"):
        load_model(run, other, device="cpu")


def test_fingerprint_follows_weights_not_the_way_of_saving(base, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(base, copy)
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"transformers_version": "9.9"}, indent=7))
    assert open_model_folder(copy).fingerprint == open_model_folder(base).fingerprint
    weights = bytearray((copy / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (copy / "model.safetensors").write_bytes(weights)
    assert open_model_folder(copy).fingerprint != open_model_folder(base).fingerprint


def test_fingerprint_of_an_original_base_in_bin_shards(tmp_path, tiny_model_dir, monkeypatch):
    folder, _ = save_original(tiny_model_dir, tmp_path / "llava-v1", form="bin")
    first = open_model_folder(folder).fingerprint
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"mm_vision_tower": "/moved/vision_tower"}))
    assert open_model_folder(folder).fingerprint == first
    monkeypatch.setattr("llava.model.run_dir._HASH_WHOLE_UP_TO", 1000)
    monkeypatch.setattr("llava.model.run_dir._SAMPLE_BYTES", 100)
    sampled = open_model_folder(folder).fingerprint
    shard = next(folder.glob("pytorch_model*.bin"))
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)
    assert open_model_folder(folder).fingerprint != sampled


def test_large_weights_are_sampled(base, tmp_path, monkeypatch):
    whole = open_model_folder(base).fingerprint
    monkeypatch.setattr("llava.model.run_dir._HASH_WHOLE_UP_TO", 1000)
    monkeypatch.setattr("llava.model.run_dir._SAMPLE_BYTES", 100)
    sampled = open_model_folder(base).fingerprint
    assert sampled == open_model_folder(base).fingerprint != whole
    copy = tmp_path / "copy"
    shutil.copytree(base, copy)
    weights = bytearray((copy / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (copy / "model.safetensors").write_bytes(weights)
    assert open_model_folder(copy).fingerprint != sampled


def write(folder, name, text):
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(text)
    return folder


def test_what_cannot_be_loaded_is_refused_in_a_line(base, run, tmp_path):
    empty = write(tmp_path / "empty", "notes.txt", "")
    bert = write(tmp_path / "bert", "config.json", '{"model_type": "bert"}')
    adapter = write(tmp_path / "adapter", "adapter_config.json", "{}")
    broken = write(tmp_path / "broken", "run.json", '{"schema_version": 1}')
    cases = [
        (tmp_path / "absent", None, "no such model folder"),
        (empty, None, "neither config.json nor run.json"),
        (bert, None, "model_type 'bert'"),
        (adapter, None, "adapter"),
        (broken, None, "run.json: base: Field required"),
        (base / "config.json", None, "is a file"),
        ("an--owner/of-no-name", None, "no name that the Hub could have: Cannot have --"),
        (base, run, "takes no --model-base"),
    ]
    for path, model_base, message in cases:
        with pytest.raises(InputError, match=message) as error:
            load_model(path, model_base, device="cpu")
        assert "\n" not in str(error.value)


def test_damaged_weights_and_missing_parts_are_refused(base, tmp_path):
    cut = tmp_path / "cut"
    shutil.copytree(base, cut)
    weights = (cut / "model.safetensors").read_bytes()
    (cut / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    with pytest.raises(InputError, match=r"model\.safetensors: cut short or damaged"):
        load_model(cut, device="cpu")

    mute = tmp_path / "mute"
    shutil.copytree(base, mute)
    for file in mute.glob("tokenizer*"):
        file.unlink()
    with pytest.raises(InputError, match="tokenizer"):
        load_model(mute, device="cpu")

    other_size = tmp_path / "size"
    shutil.copytree(base, other_size)
    path = other_size / "preprocessor_config.json"
    path.write_text(path.read_text().replace("144", "120"))
    with pytest.raises(InputError, match=r"makes \(120, 120\) pixels, the model takes \(144, 144\)"):
        load_model(other_size, device="cpu")

    deeper = tmp_path / "deeper"
    shutil.copytree(base, deeper)
    path = deeper / "config.json"
    path.write_text(path.read_text().replace('"num_hidden_layers": 2', '"num_hidden_layers": 3'))
    with pytest.raises(InputError, match=r"\d missing: model\.language_model\.layers\.2"):
        load_model(deeper, device="cpu")


def tensors_of(folder, change=lambda tensors: None):
    """The tensors of `folder`, changed, and no file of them any more."""
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    (folder / "model.safetensors").unlink()
    return tensors


class Payload:
    def __reduce__(self):
        return (print, ("payload ran",))


def with_payload(folder):
    torch.save(tensors_of(folder) | {"more": Payload()}, folder / "pytorch_model.bin")


def sharded(folder):
    write_weights(folder, tensors_of(folder), 2, "safetensors")
    return folder / "model-00001-of-00002.safetensors"


def indexed_elsewhere(folder):
    shard, index = sharded(folder), folder / "model.safetensors.index.json"
    shard.rename(folder.parent / "outside.safetensors")
    index.write_text(index.read_text().replace(shard.name, "../outside.safetensors"))


def linked_nowhere(folder):
    shard = sharded(folder)
    shard.unlink()
    shard.symlink_to(folder / "nowhere.safetensors")


def stored_twice(folder):
    twice = {"model.language_model.norm.weight": torch.ones(32)}
    write_weights(folder, tensors_of(folder, lambda tensors: tensors.update(twice)), 1, "safetensors")


def settings(name, **values):
    def change(folder):
        path = folder / name
        path.write_text(json.dumps((json.loads(path.read_text()) if path.is_file() else {}) | values))

    return change


DAMAGE = {
    "a payload": (with_payload, r"pytorch_model\.bin: holds pickled objects that are no tensors"),
    "outside": (indexed_elsewhere, r"index\.json: '\.\./outside\.safetensors' is not a file of this folder"),
    "a dangling link": (linked_nowhere, r"model-00001-of-00002\.safetensors is missing"),
    "two spellings": (
        stored_twice,
        r"two tensors are model\.language_model\.norm\.weight, one of them stored as",
    ),
    "a type of no model": (settings("config.json", model_type=["llava"]), r"model_type \['llava'\]"),
    "a type of no field": (settings("config.json", image_token_index="x"), r"config\.json is not usable"),
    "no text_config": (settings("config.json", text_config=None), "missing: .*; .* of another shape: "),
    "no mean colour": (settings("preprocessor_config.json", image_mean=None), "image processor"),
    "generation": (settings("generation_config.json", max_new_tokens=[]), "generation_config.json is not"),
    "no object": (lambda f: (f / "generation_config.json").write_text("[]"), "generation_config.json is not"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_folder_of_the_hub_is_told_in_a_line(base, tmp_path, damage, capfd):
    folder = tmp_path / "model"
    shutil.copytree(base, folder)
    do, message = DAMAGE[damage]
    do(folder)
    with pytest.raises(InputError, match=message) as told:
        load_model(folder, device="cpu")
    assert "\n" not in str(told.value)
    assert "payload ran" not in capfd.readouterr().out


def test_shards_may_be_links_as_in_the_hubs_cache(base, tmp_path):
    folder = tmp_path / "snapshot"
    shutil.copytree(base, folder)
    shard = sharded(folder)
    shard.rename(tmp_path / "blob")
    shard.symlink_to(tmp_path / "blob")
    assert torch.equal(logits(load_model(folder, device="cpu")), logits(load_model(base, device="cpu")))


def test_old_bin_folders_load_with_their_own_settings(base, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(base, folder)
    write_weights(folder, tensors_of(folder), 2, "bin")
    settings("generation_config.json", eos_token_id=[2, 7])(folder)
    (folder / "chat_template.json").write_text("[]")  # has none, then
    loaded = load_model(folder, device="cpu")
    assert torch.equal(logits(loaded), logits(load_model(base, device="cpu")))
    assert loaded.model.generation_config.eos_token_id == [2, 7]
    assert loaded.model.name_or_path == str(folder)  # PEFT writes it into adapters


JUNK = st.sampled_from([None, "x", -1, 0, 1.5, [], {}, [1], True])
FILES = ("config.json", "preprocessor_config.json", "processor_config.json", "tokenizer_config.json")


@hypothesis.given(st.data())
@hypothesis.settings(max_examples=60, deadline=None)
def test_settings_are_used_or_refused_in_a_line(odd_folders, data):
    """Any one value of any settings file may be anything."""
    folder = data.draw(st.sampled_from(odd_folders))
    path = data.draw(st.sampled_from([folder / name for name in FILES if (folder / name).is_file()]))
    text = path.read_text()
    content = inner = json.loads(text)
    key = data.draw(st.sampled_from(sorted(inner)))
    if isinstance(inner[key], dict) and inner[key] and data.draw(st.booleans()):
        inner = inner[key]
        key = data.draw(st.sampled_from(sorted(inner)))
    inner[key] = data.draw(JUNK)
    path.write_text(json.dumps(content))
    try:
        model = open_model_folder(folder)
        make_processor(model.config, model.tokenizer, model.image_processor, model.template)
    except InputError as error:
        assert "\n" not in str(error)
    finally:
        path.write_text(text)


@pytest.fixture(scope="module")
def odd_folders(tiny_model_dir, tmp_path_factory):
    place = tmp_path_factory.mktemp("odd")
    return [
        save_original(tiny_model_dir, place / "original", "llava_next-mistral")[0],
        save_family(tiny_model_dir, place / "onevision", "llava_onevision-qwen2"),
        save_family(tiny_model_dir, place / "llava", "llava-llama"),
    ]


def test_adapters_on_the_hub_come_with_their_projector(base, monkeypatch):
    wanted = []

    def snapshot(name, allow_patterns):
        wanted.extend(allow_patterns)
        return str(base)

    monkeypatch.setattr(hub, "snapshot_download", snapshot)
    hub.resolve_folder("some-owner/some-lora")
    assert {"non_lora_trainables.bin", "mm_projector.bin"} <= {*wanted}
    wanted.clear()
    hub.resolve_folder("some-owner/some-lora", weights=False)
    assert not any(pattern.endswith((".bin", ".safetensors")) for pattern in wanted)


def test_hub_names_go_to_the_hub(base, monkeypatch):
    asked = []

    def snapshot(name, allow_patterns):
        asked.append(name)
        return str(base)

    monkeypatch.setattr(hub, "snapshot_download", snapshot)
    loaded = load_model("some-owner/some-model", device="cpu")
    assert asked == ["some-owner/some-model"]
    assert loaded.model_id == "some-model"


def test_quantisation_says_what_to_install(base, monkeypatch):
    monkeypatch.setattr(builder.importlib.util, "find_spec", lambda name: None)
    for flags in ({"load_8bit": True}, {"load_4bit": True}):
        with pytest.raises(InputError, match=re.escape(f"need bitsandbytes: {how_to_install('quant')}")):
            load_model(base, device="cpu", **flags)
    with pytest.raises(InputError, match="choose one"):
        load_model(base, device="cpu", load_8bit=True, load_4bit=True)


def test_a_device_that_is_not_there_is_named(tiny_model_dir: Path) -> None:
    for device in ("gpu", "mps:7"):
        with pytest.raises(InputError, match=f"--device {device}: there is none here .*; say cpu, cuda"):
            load_model(tiny_model_dir, device=device)


def test_conv_mode_is_the_users_choice(base):
    assert load_model(base, device="cpu", conv_mode="mistral_instruct").template.name == "mistral_instruct"
    with pytest.raises(InputError, match="unknown conv mode"):
        load_model(base, device="cpu", conv_mode="v7")


def test_llavas_own_entry_points(base):
    path = str(base)
    tokenizer, model, image_processor, context_len = load_pretrained_model(
        model_path=path, model_base=None, model_name=get_model_name_from_path(path), device="cpu"
    )
    assert context_len == 512
    images = process_images(
        [Image.new("RGB", (60, 20)), Image.new("RGB", (20, 60))], image_processor, model.config
    )
    assert images.shape == (2, 3, 144, 144)
    ids = tokenizer_image_token("USER: <image>\nHi", tokenizer, IMAGE_TOKEN_INDEX, return_tensors="pt")
    assert ids.tolist().count(-200) == 1
    assert ids.tolist().count(tokenizer.bos_token_id) == 1


def test_model_names_and_base64():
    assert get_model_name_from_path("liuhaotian/llava-v1.5-7b") == "llava-v1.5-7b"
    assert get_model_name_from_path("runs/mine/checkpoint-40/") == "mine_checkpoint-40"
    with pytest.raises(InputError, match="not base64"):
        load_image_from_base64("***")
