"""Folders in the original LLaVA's format load as what they are, or are refused in a line."""

import json
import shutil

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from sentencepiece import SentencePieceProcessor, SentencePieceTrainer

from llava.common.errors import InputError
from llava.model.builder import load_model, load_pretrained_model
from llava.model.folder import open_model_folder
from llava.model.sentencepiece import tokenizer_of_pieces
from llava.model.shards import open_file, open_weights, parse_size, write_shards
from tests.support.family_models import family_config, family_model
from tests.support.original_folders import logits, save_original, write_file, write_weights
from tests.support.paths import REPO

FAMILIES = ["llava-llama", "llava_next-llama", "llava_next-mistral"]


@pytest.fixture
def original(tiny_model_dir, tmp_path):
    return save_original(tiny_model_dir, tmp_path / "odd name")[0]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    "form",
    [
        {},
        {"tower_inside": True},
        {"shards": 3},
        {"shards": 3, "form": "bin"},
        {"form": "bin", "tower_inside": True},
    ],
    ids=str,
)
def test_every_tensor_is_in_its_place(tiny_model_dir, tmp_path, family, form):
    folder, tensors = save_original(tiny_model_dir, tmp_path / "model", family, **form)
    loaded = load_model(folder, device="cpu")
    config = family_config(family, side=24, patch=8, text={"vocab_size": 1088})
    placed = dict(loaded.model.state_dict())
    expected = family_model(config).state_dict()  # of the same seed
    assert placed.keys() == expected.keys()
    for name, value in placed.items():
        rows = (
            1024
            if name.endswith(("embed_tokens.weight", "lm_head.weight"))
            else len(value)
            if value.dim()
            else 1
        )
        assert torch.equal(value[:rows], expected[name][:rows]), name
    assert len(tensors) == len(placed)
    assert loaded.model.config.image_token_id == 1024 == loaded.tokenizer.convert_tokens_to_ids("<image>")
    assert loaded.tokenizer.pad_token_id == 1025
    assert loaded.template.name == ("mistral_instruct" if "mistral" in family else "vicuna_v1")
    assert loaded.model.generation_config.eos_token_id == 2
    assert torch.isfinite(logits(loaded)).all()


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_are_those_of_the_model_that_was_saved(tiny_model_dir, tmp_path, family):
    loaded = load_model(save_original(tiny_model_dir, tmp_path / "model", family)[0], device="cpu")
    twin = family_model(family_config(family, side=24, patch=8, text={"vocab_size": 1088}))
    twin.config.image_token_id = 1024
    found = logits(loaded)
    loaded.model = twin
    assert torch.equal(found[..., :1024], logits(loaded)[..., :1024])


def test_rows_behind_the_vocabulary_never_win(original):
    found = logits(load_model(original, device="cpu"))
    assert (found[..., 1024:].amax(-1) < found[..., :1024].amax(-1)).all()


def test_grids_are_width_first_there_and_height_first_here(tiny_model_dir, tmp_path):
    """A small square picture fits several grids equally: the first of the list decides, and so does what its
    numbers mean."""
    folder, _ = save_original(tiny_model_dir, tmp_path / "model", "llava_next-llama")
    path = folder / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | {"image_grid_pinpoints": "[(24, 48), (48, 24)]"}))
    loaded = load_model(folder, device="cpu")
    assert loaded.model.config.image_grid_pinpoints == [[48, 24], [24, 48]]
    assert loaded.image_processor.image_grid_pinpoints == [[48, 24], [24, 48]]


def test_hub_names_of_all_releases_load_alike(tiny_model_dir, tmp_path):
    """On the Hub, in memory up to transformers 4.5x, in memory today."""
    model = load_model(tiny_model_dir, device="cpu").model
    now = {name: value.clone() for name, value in model.state_dict().items()}
    hub = {}
    for name, value in now.items():
        old = name.replace("model.vision_tower.", "vision_tower.vision_model.")
        old = old.replace("model.language_model.", "language_model.model.").replace("model.multi", "multi")
        hub["language_model." + old if old.startswith("lm_head") else old] = value
    between = {
        name.replace("vision_tower.", "vision_tower.vision_model."): value for name, value in now.items()
    }
    assert len({*hub} & {*now}) == 0 and {*between} != {*now}
    for kind, tensors in (("now", now), ("hub", hub), ("between", between)):
        folder = tmp_path / kind
        shutil.copytree(tiny_model_dir, folder)
        save_file(tensors, folder / "model.safetensors", {"format": "pt"})
        loaded = load_model(folder, device="cpu").model.state_dict()
        read = {name: tensor.read() for name, tensor in open_model_folder(folder).open_tensors().items()}
        assert loaded.keys() == read.keys() == now.keys()
        for name, value in now.items():
            assert torch.equal(loaded[name], value), (kind, name)
            assert torch.equal(read[name], value), (kind, name)


def test_types_are_cast_to_the_asked_one(original):
    mixed = load_file(original / "model.safetensors")
    mixed["model.norm.weight"] = mixed["model.norm.weight"].bfloat16()
    save_file(mixed, original / "model.safetensors")
    loaded = load_model(original, device="cpu", dtype=torch.float16)
    assert {parameter.dtype for parameter in loaded.model.parameters()} == {torch.float16}


def test_llavas_entry_point(original):
    tokenizer, model, image_processor, context = load_pretrained_model(str(original), None, "x", device="cpu")
    assert (len(tokenizer), context, image_processor.crop_size["height"]) == (1026, 512, 24)
    assert model.config.model_type == "llava"


def test_a_moved_folder_finds_its_tower(original, tmp_path):
    path = original / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | {"mm_vision_tower": str(tmp_path / "gone" / "tower")}))
    load_model(original, device="cpu")
    shutil.move(original / "tower", tmp_path / "gone" / "tower")
    load_model(original, device="cpu")


def test_the_released_tower_is_known_without_its_folder(original, monkeypatch):
    """So that a dry run needs the small files alone; the weights are fetched when they are read."""

    def absent(name):
        raise InputError(f"{name}: not reachable")

    monkeypatch.setattr("llava.model.original.resolve_folder", absent)
    edit_config(original, mm_vision_tower="openai/clip-vit-large-patch14-336")
    folder = open_model_folder(original)
    assert folder.config.vision_config.image_size == folder.image_processor.crop_size["height"] == 336
    with pytest.raises(InputError, match=r"clip-vit-large-patch14-336' is not here; put that folder at"):
        folder.open_tensors()


def shrink(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def edit_config(folder, **values):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


class Payload:
    def __reduce__(self):
        return (print, ("payload ran",))


def rewrite(folder, change):
    path = folder / "model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)


def lose_a_shard(folder):
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    write_weights(folder, tensors, 3, "safetensors")
    (folder / "model-00002-of-00003.safetensors").unlink()


def lose_a_shard_and_the_index(folder):
    lose_a_shard(folder)
    (folder / "model.safetensors.index.json").unlink()


def payload(folder):
    (folder / "model.safetensors").unlink()
    torch.save({"lm_head.weight": Payload()}, folder / "pytorch_model.bin")


def half_a_bin(folder):
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(tensors, folder / "pytorch_model.bin")
    shrink(folder / "pytorch_model.bin")


def pointer(folder):
    (folder / "model.safetensors").write_text(
        "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
    )


DAMAGE = {
    "cut": (lambda f: shrink(f / "model.safetensors"), "model.safetensors: cut short or damaged"),
    "cut bin": (half_a_bin, "pytorch_model.bin: cut short, damaged or no torch file"),
    "lost shard": (lose_a_shard, r"model-00002-of-00003.safetensors is missing \(\d+ tensors"),
    "lost shard, no index": (lose_a_shard_and_the_index, "shard 2 of 3 is missing"),
    "lfs": (pointer, "Git LFS pointer"),
    "payload": (payload, "pytorch_model.bin: holds pickled objects that are no tensors"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "has no weights"),
    "resized": (
        lambda f: rewrite(f, lambda t: t.update({"lm_head.weight": torch.ones(1030, 32)})),
        "lm_head.weight has 1030 rows, the tokenizer 1024 tokens and config.json vocab_size 1024",
    ),
    "config resized": (lambda f: edit_config(f, vocab_size=1030), "vocab_size 1030: the vocabulary was"),
    "missing": (lambda f: rewrite(f, lambda t: t.pop("model.norm.weight")), "1 missing: .*norm.weight"),
    "unexpected": (
        lambda f: rewrite(f, lambda t: t.update({"model.extra": torch.ones(2)})), "1 unexpected: model.extra",
    ),
    "another shape": (
        lambda f: rewrite(f, lambda t: t.update({"model.norm.weight": torch.ones(7)})),
        r"norm.weight \(7,\) where the config needs \(32,\)",
    ),
    "quantised": (
        lambda f: rewrite(f, lambda t: t.update({"model.norm.weight": torch.ones(32, dtype=torch.int8)})),
        "norm.weight are int8",
    ),
    "no projector": (
        lambda f: rewrite(f, lambda t: [t.pop(n) for n in [*t] if "mm_projector" in n]), "no mm_projector",
    ),
    "no tower": (lambda f: shutil.rmtree(f / "tower"), "vision tower .tower. is not here; put that folder"),
    "no tokenizer": (lambda f: (f / "tokenizer.model").unlink(), "has no tokenizer.model"),
    "broken tokenizer": (lambda f: (f / "tokenizer.model").write_bytes(b"no"), "no SentencePiece model"),
    "linear": (lambda f: edit_config(f, mm_projector_type="linear"), "mm_projector_type is 'linear'"),
    "crops": (lambda f: edit_config(f, image_aspect_ratio="square"), "image_aspect_ratio is 'square'"),
    "start and end": (lambda f: edit_config(f, mm_use_im_start_end=True), "mm_use_im_start_end is True"),
    "mpt": (lambda f: edit_config(f, model_type="llava_mpt"), "original llava_mpt model"),
}  # fmt: skip


@pytest.mark.parametrize("case", DAMAGE)
def test_damage_is_told_in_a_line(original, case, capfd):
    damage, line = DAMAGE[case]
    damage(original)
    with pytest.raises(InputError, match=line) as told:
        load_model(original, device="cpu")
    assert "\n" not in str(told.value)
    assert "payload ran" not in capfd.readouterr().out


def test_an_index_names_files_of_its_folder_only(original):
    (original / "model.safetensors").rename(original.parent / "elsewhere.safetensors")
    index = {"weight_map": {"lm_head.weight": "../elsewhere.safetensors"}}
    (original / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(InputError, match="not a file of this folder"):
        open_weights(original)


def test_kinds_by_content(tiny_model_dir, original, tmp_path):
    def folder(name, **files):
        (tmp_path / name).mkdir()
        for file, content in files.items():
            (tmp_path / name / file.replace("__", ".")).write_text(json.dumps(content))
        return tmp_path / name

    def kind(path):
        return open_model_folder(path).kind

    early = {"model_type": "llava", "mm_vision_tower": "openai/clip"}
    assert kind(tiny_model_dir) == "hf"
    assert kind(original) == "original"
    assert kind(folder("early", config__json=early)) == "original"
    assert kind(folder("run", run__json={}, adapter_config__json={})) == "run"
    assert kind(folder("peft", adapter_config__json={})) == "peft_adapter"
    assert kind(folder("lora", adapter_config__json={}, config__json=early)) == "original_lora"
    assert kind(folder("lora2", adapter_config__json={}, non_lora_trainables__bin=0)) == "original_lora"
    assert kind(folder("projector", config__json=early, mm_projector__bin=0)) == "original_projector"
    assert kind(folder("vicuna", config__json={"model_type": "llama"})) == "language_model"
    with pytest.raises(InputError, match=r"neither config\.json nor run\.json"):
        kind(folder("empty"))
    with pytest.raises(InputError, match="model_type 'bert'"):
        kind(folder("bert", config__json={"model_type": "bert"}))


@pytest.fixture(scope="module")
def tiny_tokenizer(tiny_model_dir, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    shutil.copyfile(tiny_model_dir / "tokenizer.model", folder / "tokenizer.model")
    return tokenizer_of_pieces(folder), SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))


@given(st.text(alphabet=st.characters(exclude_characters="<\0", exclude_categories=("Cs",)), max_size=40))
def test_ids_are_sentencepieces_own(tiny_tokenizer, text):
    tokenizer, pieces = tiny_tokenizer
    assert tokenizer(text).input_ids == [1, *pieces.encode(text)]


def test_ids_are_sentencepieces_own_for_llama(shared_data):
    folder = shared_data / "llama_tokenizer"
    tokenizer, pieces = (
        tokenizer_of_pieces(folder),
        SentencePieceProcessor(model_file=str(folder / "tokenizer.model")),
    )
    assert tokenizer.convert_tokens_to_ids("<image>") == 32000
    text = (REPO / "README.md").read_text(encoding="utf-8").replace("<", "(")
    for part in (text[start : start + 400] for start in range(0, len(text), 400)):
        assert tokenizer(part).input_ids == [1, *pieces.encode(part)]


def train_pieces(folder, **settings):
    folder.mkdir()
    lines = ["the quick brown fox jumps over the lazy dog 0123", "a photo of an insulator with a defect"] * 20
    SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_prefix=str(folder / "tokenizer"), minloglevel=2, num_threads=1,
        **{"vocab_size": 330, "model_type": "bpe", "byte_fallback": True, "split_digits": True,
           "normalization_rule_name": "identity", "remove_extra_whitespaces": False} | settings,
    )  # fmt: skip
    return folder


def test_user_defined_pieces_are_cut_out_first(tmp_path):
    folder = train_pieces(tmp_path / "spm", user_defined_symbols=["<box>", "<box>ed", "qu"])
    tokenizer = tokenizer_of_pieces(folder)
    pieces = SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    for text in ("a <box>the quick", "<box>ed<box>", "the fox qu jumps <box> ", "aquqb"):
        assert tokenizer(text).input_ids == [1, *pieces.encode(text)]
    assert tokenizer("<box>").input_ids[-1] == pieces.piece_to_id("<box>")


def test_added_tokens_and_bos_are_the_configs(tmp_path):
    folder = train_pieces(tmp_path / "spm")
    size = len(SentencePieceProcessor(model_file=str(folder / "tokenizer.model")))
    (folder / "added_tokens.json").write_text(json.dumps({"<|im_end|>": size + 1, "<|im_start|>": size}))
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"add_bos_token": False, "eos_token": {"content": "<|im_end|>"}})
    )
    tokenizer = tokenizer_of_pieces(folder)
    assert tokenizer("<|im_start|>").input_ids == [size]
    assert (tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids("<image>")) == (size + 1, size + 2)
    (folder / "added_tokens.json").write_text(json.dumps({"<|im_end|>": size + 5}))
    with pytest.raises(InputError, match="said to be"):
        tokenizer_of_pieces(folder)


def test_other_sentencepiece_models_are_refused(tmp_path):
    # how many pieces a unigram model finds in so little text differs from release to release
    unigram = {"model_type": "unigram", "hard_vocab_limit": False}
    cases = [(unigram, "no BPE model"), ({"add_dummy_prefix": False}, "as no Llama tokenizer does")]
    for settings, message in cases:
        folder = train_pieces(tmp_path / message, **settings)
        with pytest.raises(InputError, match=message):
            tokenizer_of_pieces(folder)


@pytest.mark.parametrize("form", ["bin", "safetensors"])
@given(st.data())
def test_any_bytes_are_read_or_refused_in_a_line(tmp_path_factory, form, data):
    path = tmp_path_factory.mktemp("bytes") / f"model.{form}"
    write_file(path, {f"layer.{number}": torch.ones(2, 3) for number in range(3)})
    content = bytearray(path.read_bytes())
    content = content[: data.draw(st.integers(0, len(content) * 2))]
    for place, byte in data.draw(st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), max_size=6)):
        content[place : place + 1] = bytes([byte])
    path.write_bytes(content)
    try:
        for tensor in open_file(path).values():
            assert tensor.read().shape == tensor.shape
    except InputError as error:
        assert "\n" not in str(error)


@given(st.lists(st.integers(1, 300), max_size=12), st.integers(1, 2000))
def test_shards_hold_what_was_written(tmp_path_factory, sizes, most):
    folder = tmp_path_factory.mktemp("shards")
    tensors = {f"tensor.{number}": torch.rand(size) for number, size in enumerate(sizes)}
    write_shards(folder, tensors.items(), most)
    read = open_weights(folder)
    assert read.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert read[name].shape == tensor.shape and torch.equal(read[name].read(), tensor)
    for path in folder.glob("*.safetensors"):
        held = load_file(path)
        assert len(held) == 1 or sum(tensor.nbytes for tensor in held.values()) <= most
    assert {path.suffix for path in folder.iterdir()} <= {".safetensors", ".json"}


def test_sizes():
    assert (parse_size("5GB"), parse_size("1.5 MiB"), parse_size("10kb")) == (5 * 10**9, 1536 * 1024, 10_000)
    for text in ("5", "GB", "-1GB", "0GB"):
        with pytest.raises(InputError, match="is no size"):
            parse_size(text)
