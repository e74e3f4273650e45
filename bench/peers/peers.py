"""The rows of `lriad-fast bench` that PyTorch and transformers can do, on the same GPU: same sizes, random weights, bfloat16, medians.

usage: python3 peers.py [attention linear vision prefill decode]
"""
import statistics
import sys
import time

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration, StaticCache

REPEATS = 15
GRID = (1, 44, 46)
PATCHES = 44 * 46
TEXT = 102


def median_ms(action, prepare=None):
    for _ in range(3):
        action()
    times = []
    for _ in range(REPEATS):
        if prepare:
            prepare()
        torch.cuda.synchronize()
        start = time.perf_counter()
        action()
        torch.cuda.synchronize()
        times.append((time.perf_counter() - start) * 1e3)
    return statistics.median(times)


def report(name, contender, ms):
    print(f"{name:<52}{contender:<44}{ms:10.3f} ms", flush=True)


def linear():
    weights = [torch.randn(18944, 3584, device="cuda", dtype=torch.bfloat16) for _ in range(4)]
    for rows in (8, 64, 256):
        x = torch.randn(rows, 3584, device="cuda", dtype=torch.bfloat16)
        # A graph of many products, so that only the GPU's time counts.
        graph = torch.cuda.CUDAGraph()
        F.linear(x, weights[0])
        with torch.cuda.graph(graph):
            for i in range(40):
                F.linear(x, weights[i % 4])
        report(f"linear 3584 -> 18944, {rows} rows", "cuBLAS (F.linear)", median_ms(graph.replay) / 40)


def attention():
    for sequences, length in ((8, 812), (2, 8192)):
        q, k, v = (torch.randn(sequences, heads, length, 128, device="cuda", dtype=torch.bfloat16) for heads in (28, 4, 4))
        for name, backend in (("cuDNN", SDPBackend.CUDNN_ATTENTION), ("flash-2", SDPBackend.FLASH_ATTENTION)):
            try:
                with sdpa_kernel(backend):
                    run = lambda: [F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True) for _ in range(10)]
                    report(f"attention, causal, {sequences} x {length}", name, median_ms(run) / 10)
            except RuntimeError as problem:
                print(f"{name}: {str(problem).splitlines()[0]}")


def make_model():
    text = dict(hidden_size=3584, num_hidden_layers=28, num_attention_heads=28, num_key_value_heads=4, intermediate_size=18944, vocab_size=152064, rms_norm_eps=1e-6,
                tie_word_embeddings=False, rope_parameters=dict(rope_type="default", mrope_section=[16, 24, 24], rope_theta=1e6), max_position_embeddings=32768)
    vision = dict(depth=32, embed_dim=1280, hidden_size=3584, num_heads=16, mlp_ratio=4, patch_size=14)
    config = Qwen2VLConfig(text_config=text, vision_config=vision, image_token_id=151655, vision_start_token_id=151652, vision_end_token_id=151653, tie_word_embeddings=False)
    torch.set_default_dtype(torch.bfloat16)
    with torch.device("cuda"):
        model = Qwen2VLForConditionalGeneration(config).eval()
    torch.set_default_dtype(torch.float32)
    return model


def inputs(prompts):
    ids = torch.randint(0, 150000, (prompts, PATCHES // 4 + TEXT), device="cuda")
    ids[:, 14] = 151652
    ids[:, 15:15 + PATCHES // 4] = 151655
    return dict(input_ids=ids, attention_mask=torch.ones_like(ids), mm_token_type_ids=(ids == 151655).int(),
                pixel_values=torch.randn(prompts * PATCHES, 1176, device="cuda", dtype=torch.bfloat16), image_grid_thw=torch.tensor([GRID] * prompts, device="cuda"))


@torch.no_grad()
def with_model(parts):
    model = make_model()
    if "vision" in parts:
        pixels, grid = torch.randn(PATCHES, 1176, device="cuda", dtype=torch.bfloat16), torch.tensor([GRID], device="cuda")
        report(f"vision encoder, {PATCHES} patches", "transformers", median_ms(lambda: model.model.visual(pixels, grid_thw=grid)))
    if "prefill" in parts:
        for prompts in (1, 8):
            batch = inputs(prompts)
            report(f"prefill, {prompts} x 608 tokens, images included", "transformers", median_ms(lambda: model(**batch, logits_to_keep=1)))
    if "decode" in parts:
        for sequences in (8, 64):
            batch = inputs(1)
            tokens = 40
            run = lambda count: model.generate(**batch, num_return_sequences=sequences, do_sample=True, top_k=0, min_new_tokens=count, max_new_tokens=count)
            run(2)
            torch.cuda.synchronize()
            times = []
            for count in (8, 8 + tokens):
                start = time.perf_counter()
                run(count)
                torch.cuda.synchronize()
                times.append(time.perf_counter() - start)
            report(f"decode step, {sequences} sequences", "transformers.generate", (times[1] - times[0]) / tokens * 1e3)
            decode_graph(model, sequences)


def decode_graph(model, sequences):
    """One step over a static cache, recorded as a CUDA graph: what plain PyTorch can reach."""
    language, context = model.model.language_model, 720
    cache = StaticCache(config=model.config.get_text_config(), max_cache_len=768)
    embeds = torch.randn(sequences, 1, 3584, device="cuda", dtype=torch.bfloat16)
    position = torch.tensor([context], device="cuda")
    positions = torch.full((3, sequences, 1), context, device="cuda")
    mask = torch.zeros(sequences, 1, 1, 768, device="cuda", dtype=torch.bfloat16)
    mask[..., context + 1:] = float("-inf")

    def step():
        hidden = language(inputs_embeds=embeds, attention_mask={"full_attention": mask}, position_ids=positions, past_key_values=cache, use_cache=True, cache_position=position).last_hidden_state
        logits = model.lm_head(hidden[:, -1]).float()
        return torch.multinomial(logits.softmax(-1), 1)

    stream = torch.cuda.Stream()
    try:
        with torch.cuda.stream(stream):
            for _ in range(3):
                step()
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=stream):
            step()
        report(f"decode step, {sequences} sequences", "PyTorch, static cache, CUDA graph", median_ms(graph.replay))
    except Exception as problem:  # a contender that does not run is named, not passed over
        print(f"static cache: {type(problem).__name__}: {str(problem).splitlines()[0]}")


if __name__ == "__main__":
    chosen = sys.argv[1:] or ["linear", "attention", "vision", "prefill", "decode"]
    print(torch.cuda.get_device_name(), "PyTorch", torch.__version__)
    if "linear" in chosen:
        linear()
    if "attention" in chosen:
        attention()
    if {"vision", "prefill", "decode"} & set(chosen):
        with_model(chosen)
