"""The token ids (and training labels) that the original LLaVA makes of conversations, for every conv mode:
the vectors of tests/llava/model/test_original_ids.py. Run by the original's own Python (see original_env.sh):

    env -u PYTHONPATH .interop/original/bin/python tests/interop/original_ids.py

It writes tests/interop/original_ids.json, with the embedded base's tokenizer.model. -200 marks a picture.
`qwen` and `llama_3` are LLaVA-NeXT's, which is no package: the original's Conversation is given LLaVA-NeXT's
system text, roles and separators.
"""

import json
from pathlib import Path

from llava.train.train import preprocess
from transformers import LlamaTokenizer

import llava
from llava import conversation
from llava.constants import IMAGE_TOKEN_INDEX
from llava.conversation import Conversation, SeparatorStyle, conv_templates
from llava.mm_utils import tokenizer_image_token

HERE = Path(__file__).resolve().parent
TOKENIZER = HERE.parents[1] / "playground" / "tiny-llava" / "tokenizer.model"
MODES = ["vicuna_v1", "llava_v1", "llava_v0", "llava_llama_2", "mistral_instruct", "chatml_direct", "mpt"]
# Not llava_v0, whose training writes another text than its prompts; nor ChatML, whose labels the original
# counts wrongly with a tokenizer that adds BOS ("tokenization mismatch", and the conversation is ignored).
LABELLED = ["vicuna_v1", "llava_v1", "llava_llama_2", "mistral_instruct"]
CONTROLS = ["<|im_start|>", "<|im_end|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
CONVERSATIONS = {
    "one question": ["<image>\nIs there a defect in this picture?"],
    "a chat": [
        "<image>\nIs there a broken disc?",
        "Yes, near [0.125, 0.500, 0.250, 0.750].",
        "What kind of defect is it?\nAnswer in one word.",
        "Flashover",
    ],
    "a chat going on": [
        "<image>\nWas ist zu sehen?",
        "Ein Isolator, 3 Teller: \u00e4lter.",
        "And 2 of them?",
    ],
    "no picture": [
        "How many kinds of defects are there?",
        "Six \u2014 say \u201c6\u201d, \u7edd\u7f18\u5b50.",
    ],
    "two pictures": ["<image>\n<image>\nWhich one is whole?", "The first."],
}


def mpt_style(system: str, user: str, assistant: str, sep: str) -> Conversation:
    return Conversation(
        system=system, roles=(user, assistant), messages=[], offset=0, sep_style=SeparatorStyle.MPT, sep=sep
    )


LLAVA_NEXT = {
    "qwen": mpt_style(
        "<|im_start|>system\nYou are a helpful assistant.",
        "<|im_start|>user\n",
        "<|im_start|>assistant\n",
        "<|im_end|>\n",
    ),
    "llama_3": mpt_style(
        "<|start_header_id|>system<|end_header_id|>\n\n" + conv_templates["llava_llama_2"].system,
        "<|start_header_id|>user<|end_header_id|>\n\n",
        "<|start_header_id|>assistant<|end_header_id|>\n\n",
        "<|eot_id|>",
    ),
}


def prompt(template: Conversation, texts: list[str]) -> str:
    """As llava.serve.cli builds it; an open question gets the empty answer that ends the prompt."""
    conv = template.copy()
    conv.messages = []
    for position, text in enumerate(texts):
        conv.append_message(conv.roles[position % 2], text)
    if len(texts) % 2:
        conv.append_message(conv.roles[1], None)
    return str(conv.get_prompt())


def caption_prompt(texts: list[str]) -> str:
    """As llava.train.train.preprocess_plain joins it: of the question the picture alone."""
    return "<image>" + texts[1] + conv_templates["plain"].sep


def labels(mode: str, texts: list[str], tokenizer: LlamaTokenizer) -> list[int]:
    """What the original's training supervises, -100 elsewhere."""
    conversation.default_conversation = conv_templates[mode]
    source = [{"from": "gpt" if place % 2 else "human", "value": text} for place, text in enumerate(texts)]
    made = preprocess([source], tokenizer, has_image="<image>" in texts[0])
    found = made["labels"][0].tolist()
    if not any(label != -100 for label in found):
        raise SystemExit(f"{mode}: the original's training ignores this conversation")
    return [int(label) for label in found]


def main() -> None:
    if "llava_torch" not in str(list(Path(llava.__file__).parents[1].glob("llava_torch-*"))):
        raise SystemExit("this is not the original llava; run it with the Python of original_env.sh")
    vectors = {"conversations": CONVERSATIONS, "controls": CONTROLS, "ids": {}, "ids_with_controls": {}}
    for key in ("ids", "ids_with_controls"):
        tokenizer = LlamaTokenizer(str(TOKENIZER), legacy=True)
        if key == "ids_with_controls":  # as tokens of their own, as in the models of these modes
            tokenizer.add_special_tokens({"additional_special_tokens": ["<image>", "<pad>", *CONTROLS]})
        for mode, conv in [(mode, conv_templates[mode]) for mode in MODES] + list(LLAVA_NEXT.items()):
            text_of = {name: prompt(conv, texts) for name, texts in CONVERSATIONS.items()}
            if key == "ids_with_controls" and not any(
                c in text for c in CONTROLS for text in text_of.values()
            ):
                continue
            vectors[key][mode] = {
                name: tokenizer_image_token(text, tokenizer, IMAGE_TOKEN_INDEX)
                for name, text in text_of.items()
            }
        if key == "ids":
            captions = {"two turns": caption_prompt(CONVERSATIONS["a chat"][:2])}
            vectors[key]["plain"] = {
                name: tokenizer_image_token(text, tokenizer) for name, text in captions.items()
            }
    vectors["conversations"]["two turns"] = CONVERSATIONS["a chat"][:2]
    tokenizer = LlamaTokenizer(str(TOKENIZER), legacy=True, model_max_length=2048, pad_token="<unk>")
    answered = {name: texts for name, texts in CONVERSATIONS.items() if len(texts) % 2 == 0}
    vectors["labels"] = {
        mode: {name: labels(mode, texts, tokenizer) for name, texts in answered.items()} for mode in LABELLED
    }
    path = HERE / "original_ids.json"
    path.write_text(
        json.dumps(vectors, ensure_ascii=False, indent=None)
        .replace('"ids', '\n"ids')
        .replace('"labels', '\n"labels')
        + "\n",
        "utf-8",
    )
    print(path, sum(len(modes) for modes in vectors["ids"].values()), "conversations")


if __name__ == "__main__":
    main()
