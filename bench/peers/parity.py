"""What transformers' own bfloat16 does on the golden cases: the measure that the GPU backend's error is held to.

usage: python3 parity.py MODEL_FOLDER GOLDEN_FOLDER      (the unpacked tests/Engine.Tests/Golden/tiny.tar.gz)
"""
import glob
import os
import sys

import torch
from safetensors.torch import load_file
from transformers import Qwen2VLForConditionalGeneration

model_folder, golden_folder = sys.argv[1:3]
model = Qwen2VLForConditionalGeneration.from_pretrained(model_folder, dtype=torch.bfloat16).cuda().eval()
for folder in sorted(glob.glob(os.path.join(golden_folder, "case*"))):
    golden = {name: tensor.cuda() for name, tensor in load_file(os.path.join(folder, "golden.safetensors")).items()}
    ids = golden["input_ids"].reshape(1, -1)
    with torch.no_grad():
        image_token = model.config.image_token_id
        extra = {"mm_token_type_ids": (ids == image_token).int()}
        output = model(input_ids=ids, pixel_values=golden["pixel_values"].bfloat16(), image_grid_thw=golden["image_grid_thw"].reshape(-1, 3), **extra)
    start = int(golden["prompt_length"])
    log_probs = output.logits[0, start - 1 : -1].float().log_softmax(-1).gather(1, ids[0, start:, None])[:, 0]
    error = (log_probs - golden["completion_logprobs"]).abs()
    print(f"{os.path.basename(folder)}: mean {error.mean():.5f}, largest {error.max():.5f} of {error.numel()} tokens")
