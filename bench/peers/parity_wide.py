"""A model of two layers of Qwen2-VL-7B's widths, and how far transformers' own bfloat16 is from its float32: the measure of the test `CudaWideModelTests`.

usage: python3 parity_wide.py OUT_FOLDER SAMPLE_MODEL_FOLDER
       LRIAD_WIDE_MODEL=OUT_FOLDER LrIad.Engine.Tests --filter 'FullyQualifiedName~CudaWideModelTests'

Random weights that bfloat16 holds, the same at every run; tokenizer and image settings, which the weights do not depend on, are copied from the sample model.
"""
import json
import os
import shutil
import sys

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file
from transformers import Qwen2VLForConditionalGeneration

from peers import GRID, PATCH_VALUES, PATCHES, VOCABULARY, make_model

PROMPT_TEXT = 60
COMPLETION = 40
OPTIONS = 256
RANK, ALPHA = 4, 16
END, VISION_START, VISION_END, IMAGE = 151645, 151652, 151653, 151655


def save_model(folder, sample):
    model = make_model(layers=2, depth=2)
    model.config.text_config.eos_token_id = END
    for name, parameter in model.named_parameters():
        if parameter.ndim == 1:
            # Biases are made as zeros and norms as ones, which could be left out without anything changing.
            parameter.copy_(torch.randn_like(parameter) * 0.1 + (0 if name.endswith("bias") else 1))
        elif "embed_tokens" in name:
            # As large as image features are.
            parameter.normal_()
    model.save_pretrained(folder)
    for name in ("tokenizer.json", "preprocessor_config.json"):
        shutil.copyfile(os.path.join(sample, name), os.path.join(folder, name))


def make_pixels(sample):
    """Pixels as the processor makes them: what one of 256 levels stands for, the same in both frames."""
    with open(os.path.join(sample, "preprocessor_config.json"), encoding="utf-8") as stream:
        settings = json.load(stream)
    mean, std = (torch.tensor(settings[name], dtype=torch.float64, device="cuda").view(1, 3, 1, 1) for name in ("image_mean", "image_std"))
    levels = torch.randint(256, (PATCHES, 3, 1, PATCH_VALUES // 6), device="cuda")
    return ((levels / 255 - mean) / std).float().expand(-1, -1, 2, -1).reshape(PATCHES, PATCH_VALUES)


def make_inputs(sample):
    ids = torch.randint(150000, (1, PROMPT_TEXT + PATCHES // 4 + COMPLETION), device="cuda")
    first = PROMPT_TEXT // 4
    ids[0, first - 1] = VISION_START
    ids[0, first:first + PATCHES // 4] = IMAGE
    ids[0, first + PATCHES // 4] = VISION_END
    return ids, make_pixels(sample), torch.tensor([GRID], device="cuda")


def compute_logits(folder, ids, pixels, grid, **options):
    """Float32 [positions, vocabulary]: after every token but the last."""
    model = Qwen2VLForConditionalGeneration.from_pretrained(folder, **options).cuda().eval()
    output = model(input_ids=ids, pixel_values=pixels.to(model.dtype), image_grid_thw=grid, mm_token_type_ids=(ids == IMAGE).int())
    return output.logits[0, :-1].float()


def factor_names(model):
    """layer.projection.A or B, and the parameter, in the order of the layers."""
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            layer, projection, factor = name.split("layers.")[1].split(".")[0], name.split("self_attn.")[1].split(".")[0], name.split("lora_")[1][0]
            yield f"{layer}.{projection}.{factor}", parameter


@torch.enable_grad()
def compute_gradients(folder, factors, weights, ids, pixels, grid, **options):
    """Of the weighted sum of the completion's log-probs, with respect to every factor of an adapter on q and v; factors that are not there yet are drawn."""
    model = Qwen2VLForConditionalGeneration.from_pretrained(folder, **options).cuda()
    model = get_peft_model(model, LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=r".*language_model.*\.(q_proj|v_proj)")).eval()
    parameters = dict(factor_names(model))
    with torch.no_grad():
        for name, parameter in parameters.items():
            if name not in factors:
                factors[name] = torch.randn_like(parameter, dtype=torch.float32) * (parameter.shape[1] ** -0.5 if name.endswith("A") else 0.02)
            parameter.copy_(factors[name])
    output = model(input_ids=ids, pixel_values=pixels.to(next(model.model.model.visual.parameters()).dtype), image_grid_thw=grid, mm_token_type_ids=(ids == IMAGE).int())
    log_probs = output.logits[0, -COMPLETION - 1:-1].float().log_softmax(-1).gather(-1, ids[0, -COMPLETION:, None])[:, 0]
    (weights * log_probs).sum().backward()
    return {name: parameter.grad.float() for name, parameter in parameters.items()}


@torch.no_grad()
def main():
    folder, sample = sys.argv[1:3]
    torch.manual_seed(0)
    # No TF32 anywhere: not in products, not in the patches' convolution.
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    save_model(folder, sample)
    ids, pixels, grid = make_inputs(sample)
    tokens = torch.randperm(VOCABULARY, device="cuda")[:OPTIONS].sort().values
    logits = compute_logits(folder, ids, pixels, grid, dtype=torch.float32, attn_implementation="eager")
    rounded = compute_logits(folder, ids, pixels, grid, dtype=torch.bfloat16)
    likeliest = logits.topk(2)
    results = dict(
        input_ids=ids[0], prompt_length=torch.tensor([ids.shape[1] - COMPLETION]), pixel_values=pixels, image_grid_thw=grid, options=tokens,
        argmax=likeliest.indices[:, 0], margin=likeliest.values[:, 0] - likeliest.values[:, 1], bf16_logits_error=((rounded - logits).norm() / logits.norm()).reshape(1))
    for prefix, values in (("", logits), ("bf16_", rounded)):
        log_probs = values.log_softmax(-1)
        results[prefix + "log_probs"] = log_probs.gather(-1, ids[0, 1:, None])[:, 0]
        results[prefix + "option_log_probs"] = log_probs[:, tokens]
    factors, weights = {}, torch.randn(COMPLETION, device="cuda")
    gradients = compute_gradients(folder, factors, weights, ids, pixels, grid, dtype=torch.float32, attn_implementation="eager")
    rounded_gradients = compute_gradients(folder, factors, weights, ids, pixels, grid, dtype=torch.bfloat16)
    results["weights"] = weights
    for name, gradient in gradients.items():
        error = (rounded_gradients[name] - gradient).norm() / gradient.norm()
        results |= {f"factor.{name}": factors[name], f"grad.{name}": gradient, f"bf16_grad_error.{name}": error.reshape(1)}
        print(f"bfloat16 autograd: gradient of {name} off by {error.item():.3%}")
    save_file({name: tensor.cpu().contiguous() for name, tensor in results.items()}, os.path.join(folder, "parity.safetensors"))
    errors = (results["bf16_log_probs"] - results["log_probs"]).abs()
    print(f"bfloat16 transformers: log-probs of the completion off by {errors[-COMPLETION:].mean():.5f} on average, {errors[-COMPLETION:].max():.5f} at most; "
          f"of all tokens by {errors.mean():.5f}; logits by {results['bf16_logits_error'].item():.3%}")
    print(f"{(results['margin'] > 0.1).sum()} of {errors.numel()} likeliest tokens are sure")


if __name__ == "__main__":
    main()
