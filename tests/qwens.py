"""Tiny Qwen models of random weights with their processors, for the policies that are built on them."""

from functools import cache
from pathlib import Path

import torch

MULTIMODAL = {
    "image_token": "<|image_pad|>",
    "video_token": "<|video_pad|>",
    "vision_start_token": "<|vision_start|>",
    "vision_end_token": "<|vision_end|>",
}
# One message after the other; images stand for themselves, like in Qwen's own template.
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% else %}{{ part['text'] }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
)
SPECIAL = ("<|im_start|>", "<|im_end|>")
WIDTH, VOCABULARY = 64, 640
TEXT = {
    "hidden_size": WIDTH, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": VOCABULARY, "max_position_embeddings": 1024,
    "rope_parameters": {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 10000.0},
    "bos_token_id": 2, "eos_token_id": 1, "pad_token_id": 0,
}  # fmt: skip


VISION = {"depth": 2, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2, "out_hidden_size": WIDTH}


@cache
def qwen2_5_vl() -> Path:
    """A folder with a Qwen2.5-VL of 2 layers, 64 wide, and its processor."""
    from transformers import (
        Qwen2_5_VLConfig,
        Qwen2_5_VLForConditionalGeneration,
        Qwen2_5_VLProcessor,
        Qwen2VLImageProcessor,
        Qwen2VLVideoProcessor,
    )

    folder, tokenizer, ids = _folder_and_tokenizer()
    vision = VISION | {
        "patch_size": 14, "spatial_merge_size": 2, "window_size": 56, "fullatt_block_indexes": [1],
    }  # fmt: skip
    config = Qwen2_5_VLConfig(text_config=TEXT, vision_config=vision, tie_word_embeddings=False, **ids)
    torch.manual_seed(0)
    Qwen2_5_VLForConditionalGeneration(config).save_pretrained(folder)
    Qwen2_5_VLProcessor(
        Qwen2VLImageProcessor(), tokenizer, Qwen2VLVideoProcessor(), chat_template=TEMPLATE
    ).save_pretrained(folder)
    return folder


@cache
def qwen3_vl() -> Path:
    """A folder with a Qwen3-VL of 2 layers, 64 wide, and its processor; a picture is 4 tokens."""
    from transformers import (
        Qwen2VLImageProcessor,
        Qwen3VLConfig,
        Qwen3VLForConditionalGeneration,
        Qwen3VLProcessor,
        Qwen3VLVideoProcessor,
    )

    folder, tokenizer, ids = _folder_and_tokenizer()
    vision = VISION | {"patch_size": 16, "spatial_merge_size": 2, "deepstack_visual_indexes": [0]}
    vision |= {"num_position_embeddings": 64}
    text = TEXT | {"head_dim": 16, "rope_parameters": TEXT["rope_parameters"] | {"mrope_interleaved": True}}
    config = Qwen3VLConfig(text_config=text, vision_config=vision, tie_word_embeddings=False, **ids)
    torch.manual_seed(0)
    Qwen3VLForConditionalGeneration(config).save_pretrained(folder)
    Qwen3VLProcessor(
        Qwen2VLImageProcessor(patch_size=16, min_pixels=64 * 64, max_pixels=64 * 64),
        tokenizer,
        Qwen3VLVideoProcessor(),
        chat_template=TEMPLATE,
    ).save_pretrained(folder)
    return folder


def _folder_and_tokenizer():
    """Also the ids of the special tokens, by the names of a Qwen config."""
    from vlas import _folder, _tokenizer

    folder = _folder()
    tokenizer = _tokenizer(folder, {f"token_{i}": token for i, token in enumerate(SPECIAL)} | MULTIMODAL)
    ids = {f"{name}_id": tokenizer.convert_tokens_to_ids(token) for name, token in MULTIMODAL.items()}
    return folder, tokenizer, ids
