"""Small folders in the original LLaVA's format, written from its own definition and not by our exporter."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors.torch import save_file
from sentencepiece import SentencePieceProcessor

from tests.support.family_models import family_config, family_image_processor, family_model

WIDE_IMAGE = Image.effect_noise((70, 30), 90).convert("RGB")
RENAMED = (
    ("model.language_model.", "model."),
    ("model.vision_tower.", "model.vision_tower.vision_tower.vision_model."),
    ("model.multi_modal_projector.linear_1.", "model.mm_projector.0."),
    ("model.multi_modal_projector.linear_2.", "model.mm_projector.2."),
)
TOWER = "model.vision_tower.vision_tower."


def original_name(name: str) -> str:
    for memory, stored in RENAMED:
        if name.startswith(memory):
            return stored + name.removeprefix(memory)
    return name


def save_original(
    tiny: Path,
    folder: Path,
    family: str = "llava-llama",
    *,
    tower_inside: bool = False,
    shards: int = 1,
    form: str = "safetensors",
    dtype: torch.dtype = torch.float32,
    scale: float = 0.3,
    text: dict[str, Any] | None = None,
) -> tuple[Path, dict[str, torch.Tensor]]:
    """The folder, and its tensors under their original names (the tower's among them)."""
    pieces = SentencePieceProcessor(model_file=str(tiny / "tokenizer.model"))
    rows = len(pieces)
    # 1,026 tokens with <image> and <pad>, and so 1,088 rows: that is what we ask of the model here
    config = family_config(family, side=24, patch=8, text={"vocab_size": 1088} | (text or {}))
    model = family_model(config, scale=scale)
    tensors = {original_name(name): value.to(dtype) for name, value in model.state_dict().items()}
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        tensors[name] = tensors[name][:rows].clone()
    anyres = family.startswith("llava_next")
    words, language = config.text_config, family.partition("-")[2]
    folder.mkdir(parents=True)
    settings = {
        "model_type": f"llava_{language}", "architectures": [f"Llava{language.title()}ForCausalLM"],
        "vocab_size": rows, "hidden_size": words.hidden_size, "intermediate_size": words.intermediate_size,
        "num_hidden_layers": words.num_hidden_layers, "num_attention_heads": words.num_attention_heads,
        "num_key_value_heads": words.num_key_value_heads, "hidden_act": "silu", "rms_norm_eps": 1e-6,
        "max_position_embeddings": words.max_position_embeddings, "rope_theta": 10000.0,
        "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, "torch_dtype": str(dtype)[6:],
        "mm_vision_tower": "tower", "mm_projector_type": "mlp2x_gelu", "mm_hidden_size": 16,
        "mm_vision_select_layer": -2, "mm_vision_select_feature": "patch", "mm_use_im_start_end": False,
        "mm_use_im_patch_token": False, "use_mm_proj": True,
        "image_aspect_ratio": "anyres" if anyres else "pad",
        "mm_patch_merge_type": "spatial_unpad" if anyres else "flat",
    }  # fmt: skip
    if language == "mistral":
        settings["sliding_window"] = None
    if anyres:  # width, height
        settings["image_grid_pinpoints"] = [[w, h] for h, w in config.image_grid_pinpoints]
    (folder / "config.json").write_text(json.dumps(settings))
    shutil.copyfile(tiny / "tokenizer.model", folder / "tokenizer.model")
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "LlamaTokenizer", "add_bos_token": True, "model_max_length": 512})
    )
    tower = {name: value for name, value in tensors.items() if name.startswith(TOWER)}
    write_tower(folder / "tower", config, {} if tower_inside else tower)
    whole = {name: value for name, value in tensors.items() if tower_inside or name not in tower}
    # older releases stored this beside the weights
    whole["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(4)
    write_weights(folder, whole, shards, form)
    return folder, tensors


def write_tower(folder: Path, config: Any, tensors: dict[str, torch.Tensor]) -> None:
    """As `openai/clip-vit-*` folders have it: the config's vision half, the image settings, the weights."""
    folder.mkdir()
    vision = config.vision_config.to_dict()
    (folder / "config.json").write_text(json.dumps({"model_type": "clip", "vision_config": vision}))
    values = family_image_processor(config).to_dict()
    kept = ("size", "crop_size", "image_mean", "image_std", "resample", "rescale_factor", "do_center_crop")
    images = {key: values[key] for key in kept} | {"image_processor_type": "CLIPImageProcessor"}
    (folder / "preprocessor_config.json").write_text(json.dumps(images))
    if tensors:
        plain = {name.removeprefix(TOWER): value for name, value in tensors.items()}
        plain["vision_model.embeddings.position_ids"] = torch.arange(10)[None]
        plain["text_model.final_layer_norm.weight"] = torch.ones(3)
        plain["logit_scale"] = torch.ones(())
        torch.save(plain, folder / "pytorch_model.bin")


def write_weights(folder: Path, tensors: dict[str, torch.Tensor], shards: int, form: str) -> None:
    stem = "model" if form == "safetensors" else "pytorch_model"
    names = sorted(tensors)
    if shards == 1:
        write_file(folder / f"{stem}.{form}", tensors)
        return
    weight_map = {}
    for number in range(shards):
        file = f"{stem}-{number + 1:05d}-of-{shards:05d}.{form}"
        part = names[number::shards]
        write_file(folder / file, {name: tensors[name] for name in part})
        weight_map |= dict.fromkeys(part, file)
    (folder / f"{stem}.{form}.index.json").write_text(json.dumps({"weight_map": weight_map}))


def write_file(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    if path.suffix == ".bin":
        torch.save(tensors, path)
    else:
        save_file({name: value.contiguous() for name, value in tensors.items()}, path, {"format": "pt"})


def logits(loaded, image=WIDE_IMAGE):
    size = (image.height, image.width)
    ids = torch.tensor([loaded.processor.encode_prompt([("human", "<image>\nWhat is it?")], [size])])
    pixels = loaded.processor.vision.inputs([loaded.processor.pixels(image)])
    with torch.no_grad():
        return loaded.model(input_ids=ids, **pixels).logits
