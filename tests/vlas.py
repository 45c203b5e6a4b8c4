"""Tiny pi0, pi05 and smolvla with random weights, built without a hub: LeRobot's code at other sizes."""

import dataclasses
import importlib
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import qwens
import torch
from lerobot.configs import NormalizationMode, PolicyFeature, PreTrainedConfig
from lerobot.policies.factory import get_policy_class, make_pre_post_processors

from lerobot_rlft.policies import load_adapters
from lerobot_rlft.policies.base import Exploration, adapter_class
from lerobot_rlft.policies.vla import VLAAdapter

VOCABULARY, WIDTH = 600, 64
# Their own sampler: noise 0.
DEPLOYED = Exploration(noise_level=0.0)


def build(
    kind: str,
    inputs: dict[str, Any],
    outputs: dict[str, Any],
    stats: dict[str, Any],
    exploration: Exploration = DEPLOYED,
    seed: int = 0,
    **fields: Any,
) -> VLAAdapter:
    """A policy with 4 denoising steps and chunks of 6 actions, 4 of them executed, padded to 5 dims."""
    load_adapters()
    prepare = PREPARATIONS[kind]
    defaults = prepare(kind) | {
        "chunk_size": 6, "n_action_steps": 4, "max_state_dim": 6, "max_action_dim": 5, "device": "cpu",
        "push_to_hub": False,
    }  # fmt: skip
    config_class = PreTrainedConfig.get_choice_class(kind)
    names = {field.name for field in dataclasses.fields(config_class)}
    defaults = {name: value for name, value in defaults.items() if name in names}
    config = config_class(
        input_features={key: PolicyFeature(*feature) for key, feature in inputs.items()},
        output_features={key: PolicyFeature(*feature) for key, feature in outputs.items()},
        **(defaults | fields),
    )
    torch.manual_seed(seed)
    module = get_policy_class(kind)(config)
    for name, weight in module.named_parameters():
        if name.endswith("norm.dense.weight"):
            torch.nn.init.normal_(weight, std=0.1)  # fresh norms of pi05 ignore the time
        elif name.endswith(("coder.fc.weight", "coder.W1.W", "coder.layer2.W")):
            torch.nn.init.normal_(weight, std=0.3)  # fresh chunks of xvla and groot are all alike
    policy = adapter_class(kind)(module, *make_pre_post_processors(config, dataset_stats=stats), exploration)
    policy.task = "push the block"
    return policy


def prepare_pi(kind: str) -> dict[str, Any]:
    """Make pi0 or pi05 small, which the config cannot ask for, and give them a tokenizer; returns fields."""
    needs("transformers", "tokenizers")
    _shrink(kind)
    _offline_tokenizer()
    return {
        "num_inference_steps": 4,
        "image_resolution": (28, 28),
        "tokenizer_max_length": 32,
    }


def prepare_smolvla(kind: str) -> dict[str, Any]:
    """Fields that name a small language model on disk."""
    needs("transformers", "tokenizers", "num2words")
    return {
        "num_steps": 4,
        "vlm_model_name": str(_smolvlm()),
        "load_vlm_weights": False,
        "num_vlm_layers": 4,
        "resize_imgs_with_padding": (64, 64),
        "train_expert_only": False,
        "freeze_vision_encoder": False,
        "tokenizer_max_length": 32,
    }


def needs(*packages: str) -> None:
    """Skip the test where an extra is not installed."""
    for name in packages:
        pytest.importorskip(
            name, reason=f"{name} is not installed, it comes with an extra of a policy family"
        )


def prepare_eo1(kind: str) -> dict[str, Any]:
    """Fields that name a small Qwen2.5-VL on disk, whose images are 4 tokens."""
    needs("transformers", "tokenizers")
    return {
        "vlm_base": str(qwens.qwen2_5_vl()),
        "num_denoise_steps": 4,
        "image_min_pixels": 56 * 56,
        "image_max_pixels": 56 * 56,
        "dtype": "float32",
    }


def prepare_xvla(kind: str) -> dict[str, Any]:
    """Fields of a small Florence-2 and a tokenizer on disk; chunks of 5 dims, of which 2 are real."""
    needs("transformers", "tokenizers")
    folder = _folder()
    _tokenizer(folder)
    text = {
        "vocab_size": VOCABULARY, "d_model": 32, "encoder_layers": 2, "decoder_layers": 1,
        "encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 64,
        "decoder_ffn_dim": 64, "max_position_embeddings": 128,
    }  # fmt: skip
    vision = {
        "depths": (1, 1), "embed_dim": (16, 32), "num_heads": (2, 2), "num_groups": (2, 2),
        "patch_size": (7, 3), "patch_stride": (4, 2), "patch_padding": (3, 1), "patch_prenorm": (False, True),
        "window_size": 4, "projection_dim": 32,
    }  # fmt: skip
    return {
        "florence_config": {"text_config": text, "vision_config": vision},
        "tokenizer_name": str(folder),
        "tokenizer_max_length": 16,
        "num_denoising_steps": 4,
        "hidden_size": 32,
        "depth": 2,
        "num_heads": 2,
        "num_domains": 3,
        "len_soft_prompts": 4,
        "action_mode": "auto",
        "normalization_mapping": {
            "VISUAL": NormalizationMode.IDENTITY,
            "STATE": NormalizationMode.MEAN_STD,
            "ACTION": NormalizationMode.MEAN_STD,
        },
    }


def prepare_vla_jepa(kind: str) -> dict[str, Any]:
    """Fields that name a small Qwen3-VL on disk; without a world model, which no action depends on."""
    needs("transformers", "tokenizers", "diffusers")
    return {
        "qwen_model_name": str(qwens.qwen3_vl()),
        "torch_dtype": "float32",
        "enable_world_model": False,
        "num_embodied_action_tokens_per_instruction": 3,
        "num_inference_timesteps": 4,
        "action_model_type": "DiT-test",
        "action_hidden_size": 32,
        "action_num_layers": 2,
        "action_dropout": 0.0,
        "clip_normalized_actions": False,
    }


def prepare_groot(kind: str) -> dict[str, Any]:
    """Fields that name a small base model on disk, in float32."""
    needs("transformers", "tokenizers", "diffusers", "tree")
    return {"base_model_path": str(_groot_base()), "use_bf16": False}


@cache
def _groot_base() -> Path:
    from lerobot.policies.groot import processor_groot
    from lerobot.policies.groot.groot_n1_7 import GR00TN17, GR00TN17Config

    folder, backbone = _folder(), str(qwens.qwen3_vl())
    processor_groot.GROOT_N1_7_BACKBONE_MODEL = backbone  # the processor names one on the hub
    attention = {"positional_embeddings": None, "num_attention_heads": 2, "dropout": 0.0}
    config = GR00TN17Config(
        model_name=backbone, dtype="float32", model_dtype="float32", select_layer=2,
        backbone_embedding_dim=qwens.WIDTH, hidden_size=32, input_embedding_dim=32, max_state_dim=6,
        max_action_dim=5, action_horizon=6, max_seq_len=32, max_num_embodiments=11,
        num_inference_timesteps=4,
        diffusion_model_cfg=attention | {
            "num_layers": 4, "attention_head_dim": 16, "norm_type": "ada_norm", "final_dropout": True,
            "output_dim": 32, "interleave_self_attention": True,
        },
        vl_self_attention_cfg=attention | {"num_layers": 1, "attention_head_dim": 32, "final_dropout": True},
    )  # fmt: skip
    torch.manual_seed(0)
    GR00TN17(config).float().save_pretrained(folder)
    return folder


PREPARATIONS = {
    "pi0": prepare_pi, "pi05": prepare_pi, "smolvla": prepare_smolvla, "eo1": prepare_eo1,
    "xvla": prepare_xvla, "vla_jepa": prepare_vla_jepa,
    "groot": prepare_groot,
}  # fmt: skip


@cache
def _shrink(kind: str) -> None:
    # Sizes are looked up by names that the config checks; 8 heads are a literal in the code.
    model = importlib.import_module(f"lerobot.policies.{kind}.modeling_{kind}")
    vlm, expert = model.PaliGemmaForConditionalGenerationWithPiGemma, model.PiGemmaForCausalLM

    def tiny_vlm(config):
        config.text_config.vocab_size = config._vocab_size = VOCABULARY
        config.image_token_index = config.image_token_id = VOCABULARY - 1
        vision = config.vision_config
        vision.hidden_size, vision.intermediate_size = 32, 64
        vision.num_hidden_layers, vision.num_attention_heads, vision.patch_size = 2, 2, 14
        vision.projection_dim = config.projection_dim = config.hidden_size = WIDTH
        return vlm(config=config)

    def tiny_expert(config):
        config.vocab_size = VOCABULARY
        return expert(config=config)

    sizes = {"width": WIDTH, "depth": 2, "mlp_dim": 128, "num_heads": 8, "num_kv_heads": 1, "head_dim": 8}
    model.get_gemma_config = lambda variant: model.GemmaConfig(**sizes)
    model.PaliGemmaForConditionalGenerationWithPiGemma = tiny_vlm
    model.PiGemmaForCausalLM = tiny_expert


@cache
def _offline_tokenizer() -> None:
    # The processors of pi0 and pi05 name a tokenizer on the hub.
    from lerobot.processor import tokenizer_processor
    from transformers import AutoTokenizer

    folder = _folder()
    _tokenizer(folder)

    class Redirected:
        @staticmethod
        def from_pretrained(name, *args, **kwargs):
            path = folder if name == "google/paligemma-3b-pt-224" else name
            return AutoTokenizer.from_pretrained(path, *args, **kwargs)

    tokenizer_processor.AutoTokenizer = Redirected


@cache
def _smolvlm() -> Path:
    from transformers import SmolVLMConfig, SmolVLMImageProcessor, SmolVLMProcessor, SmolVLMVideoProcessor

    folder = _folder()
    special = {
        "fake_image_token": "<fake_token_around_image>",
        "image_token": "<image>",
        "global_image_token": "<global-img>",
        "end_of_utterance_token": "<end_of_utterance>",
    }
    tokenizer = _tokenizer(folder, special)
    tokenizer.chat_template = "{{ messages }}"
    SmolVLMConfig(
        text_config={
            "model_type": "llama", "vocab_size": VOCABULARY, "hidden_size": WIDTH, "intermediate_size": 128,
            "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2,
            "head_dim": WIDTH // 4, "max_position_embeddings": 512, "pad_token_id": 0, "bos_token_id": 2,
            "eos_token_id": 1,
        },
        vision_config={
            "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
            "image_size": 64, "patch_size": 16,
        },
        scale_factor=2,
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        pad_token_id=0,
        tie_word_embeddings=False,
    ).save_pretrained(folder)  # fmt: skip
    SmolVLMProcessor(
        SmolVLMImageProcessor(),
        tokenizer,
        SmolVLMVideoProcessor(),
        image_seq_len=4,
        chat_template=tokenizer.chat_template,
    ).save_pretrained(folder)
    return folder


def _tokenizer(folder: Path, special: dict[str, str] | None = None):
    """Byte-level, so that it reads any text; saved to `folder`."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokens = ["<pad>", "<eos>", "<bos>", "<unk>", *(special or {}).values()]
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - 8,
        special_tokens=tokens,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(["push the block", "Task: push, State: 0 1 2 3;\nAction: "], trainer)
    names = {"pad_token": "<pad>", "eos_token": "<eos>", "bos_token": "<bos>", "unk_token": "<unk>"}
    extra = {"extra_special_tokens": special} if special else {}
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names, **extra)
    fast.save_pretrained(folder)
    return fast


_folders: list[tempfile.TemporaryDirectory] = []  # they live as long as the process


def _folder() -> Path:
    _folders.append(tempfile.TemporaryDirectory(prefix="tiny-"))
    return Path(_folders[-1].name)
