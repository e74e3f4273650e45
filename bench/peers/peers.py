"""The rows of `lriad-fast bench` that PyTorch and transformers can do, on the same GPU: same names, same sizes, random weights, bfloat16, medians.

usage: python3 peers.py [--compile SECONDS] [PART ...]      (linear attention ops vision prefill decode grpo; all of them)

--compile adds what torch.compile (max-autotune) makes of them. It may take that many seconds in all; decode steps come first.
"""
import argparse
import functools
import gc
import signal
import time

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from grpo import attention_backward, train
from timing import median_ms
from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration, StaticCache

PARTS = ["linear", "attention", "ops", "vision", "prefill", "decode", "grpo"]
REPEATS = 15
# Operations of one CUDA graph, where one alone would be lost in the time it takes to start.
IN_A_ROW = 40
GRID = (1, 44, 46)
PATCHES = 44 * 46
TEXT = 102
PROMPT = PATCHES // 4 + TEXT
COMPLETION = 112
HIDDEN, HEADS, KV_HEADS, HEAD_DIM, INTERMEDIATE, VOCABULARY, LAYERS = 3584, 28, 4, 128, 18944, 152064, 28
VISION, VISION_HEADS, PATCH_VALUES = 1280, 16, 1176


class OutOfTime(BaseException):
    """Not an Exception, so that nothing on the way takes it for a kernel that does not compile."""


class Contest:
    """Measures contenders one by one. One that does not run is named with its error's first line, not passed over."""

    def __init__(self, compile_seconds=0, tell=print):
        self.rows, self.seconds, self.compiles, self.tell = [], compile_seconds, compile_seconds > 0, tell

    def enter(self, work, contender, measure):
        """measure returns milliseconds."""
        ms, problem = None, None
        try:
            ms = measure()
        except (Exception, OutOfTime) as error:
            problem = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
        self.rows.append(dict(work=work, contender=contender, ms=ms, problem=problem))
        self.tell(f"{work:<52}{contender:<52}" + (f"{ms:10.3f} ms" if problem is None else problem), flush=True)

    def enter_compiled(self, work, contender, measure):
        """measure is given what it is to wrap its function in; compiling happens at the function's first call."""
        if self.compiles:
            self.enter(work, contender, lambda: self._in_time(lambda: measure(functools.partial(torch.compile, mode="max-autotune-no-cudagraphs", dynamic=False))))
            torch._dynamo.reset()

    def _in_time(self, measure):
        def stop(*_):
            raise OutOfTime("the seconds for compiling are used up")

        if self.seconds <= 0:
            stop()
        previous, start = signal.signal(signal.SIGALRM, stop), time.monotonic()
        signal.setitimer(signal.ITIMER_REAL, self.seconds)
        try:
            return measure()
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, previous)
            self.seconds -= time.monotonic() - start


def plain(function):
    return function


def graph_ms(step, count=IN_A_ROW):
    """Milliseconds of step(turn), recorded count times as one CUDA graph, so that only the GPU's time counts."""
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for turn in range(3):
            step(turn)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        for turn in range(count):
            step(turn)
    return median_ms(graph.replay) / count


def random(*shape, dtype=torch.bfloat16, scale=1.0):
    return torch.randn(*shape, device="cuda", dtype=dtype) * scale


def weight(outputs, inputs):
    return random(outputs, inputs, scale=0.02)


def in_turn(make, least=200 << 20):
    """Operands again and again, together larger than the L2."""
    turns = [make()]
    size = sum(tensor.numel() * tensor.element_size() for tensor in turns[0])
    return turns + [make() for _ in range(least // size)]


def operation(contest, work, function, turns, inputs, contender="PyTorch, CUDA graph"):
    """function(*inputs, *weights), the weights of every turn being others."""
    def measure(wrap=plain):
        wrapped = wrap(function)
        return graph_ms(lambda turn: wrapped(*inputs, *turns[turn % len(turns)]))

    contest.enter(work, contender, measure)
    contest.enter_compiled(work, "torch.compile, CUDA graph", measure)


def linear(contest):
    weights = in_turn(lambda: (weight(INTERMEDIATE, HIDDEN),))
    for rows in (8, 64, 256):
        x = random(rows, HIDDEN)
        contest.enter(f"linear {HIDDEN} → {INTERMEDIATE}, {rows} rows", "cuBLAS", lambda: graph_ms(lambda turn: F.linear(x, *weights[turn % len(weights)])))


def attend(contest, work, q, turns, **options):
    for name, backend in (("cuDNN", SDPBackend.CUDNN_ATTENTION), ("flash-2", SDPBackend.FLASH_ATTENTION)):
        def measure():
            with sdpa_kernel(backend):
                return graph_ms(lambda turn: F.scaled_dot_product_attention(q, *turns[turn % len(turns)], **options), 10)

        contest.enter(work, name, measure)


def attention(contest, sizes=((8, 812), (2, 8192))):
    for sequences, length in sizes:
        q, k, v = (random(sequences, heads, length, HEAD_DIM) for heads in (HEADS, KV_HEADS, KV_HEADS))
        attend(contest, f"attention, causal, {sequences} × {length}", q, [(k, v)], is_causal=True, enable_gqa=True)


def backward(contest):
    attention_backward(contest, HEADS, KV_HEADS, HEAD_DIM)


def embed(table, ids):
    return F.embedding(ids, table)


def rotate(x, cos, sin):
    first, second = x.chunk(2, -1)
    return x * cos + torch.cat((-second, first), -1) * sin


def qkv(x, cos, sin, slots, norm, query, query_bias, key, key_bias, value, value_bias, keys, values):
    x = F.rms_norm(x, (HIDDEN,), norm, 1e-6)
    keys.index_copy_(0, slots, rotate(F.linear(x, key, key_bias).view(-1, KV_HEADS, HEAD_DIM), cos, sin))
    values.index_copy_(0, slots, F.linear(x, value, value_bias).view(-1, KV_HEADS, HEAD_DIM))
    return rotate(F.linear(x, query, query_bias).view(-1, HEADS, HEAD_DIM), cos, sin)


def output_projection(o, x, weights, *bias):
    return torch.addmm(x, o, weights.t()) if not bias else x + F.linear(o, weights, *bias)


def feed_forward(x, norm, gate, up, down):
    y = F.rms_norm(x, (HIDDEN,), norm, 1e-6)
    return torch.addmm(x, F.silu(F.linear(y, gate)) * F.linear(y, up), down.t())


def vision_qkv(x, cos, sin, norm, norm_bias, weights, bias):
    q, k, v = F.linear(F.layer_norm(x, (VISION,), norm, norm_bias, 1e-6), weights, bias).view(-1, 3, VISION_HEADS, VISION // VISION_HEADS).unbind(1)
    return rotate(q, cos, sin), rotate(k, cos, sin), v


def vision_feed_forward(x, norm, norm_bias, up, up_bias, down, down_bias):
    y = F.linear(F.layer_norm(x, (VISION,), norm, norm_bias, 1e-6), up, up_bias)
    return x + F.linear(y * torch.sigmoid(1.702 * y), down, down_bias)


def patch_embedding(weights, pixels):
    return F.linear(pixels.bfloat16(), weights)


def merger(x, norm, norm_bias, first, first_bias, second, second_bias):
    y = F.layer_norm(x, (VISION,), norm, norm_bias, 1e-6).view(-1, 4 * VISION)
    return F.linear(F.gelu(F.linear(y, first, first_bias)), second, second_bias)


def logits(x, norm, head):
    return F.linear(F.rms_norm(x, (HIDDEN,), norm, 1e-6), head).float()


def draw(x, norm, head):
    return torch.multinomial(logits(x, norm, head).softmax(-1), 1)


def draw_truncated(x, norm, head):
    likeliest, tokens = logits(x, norm, head).topk(50, -1)
    probabilities = likeliest.softmax(-1)
    before = probabilities.cumsum(-1) - probabilities
    return tokens.gather(-1, torch.multinomial(probabilities * (before < 0.95), 1))


def log_prob(x, targets, norm, head):
    return logits(x, norm, head).log_softmax(-1).gather(-1, targets)


def ops(contest):
    for rows, prompt in ((8, False), (64, False), (PROMPT, True)):
        x, o = random(rows, HIDDEN), random(rows, HEADS * HEAD_DIM)
        angles = [random(rows, 1, HEAD_DIM) for _ in range(2)]
        # Other tokens every turn: a table row that was just read lies in the L2.
        operation(contest, f"embed, {rows} rows", embed, in_turn(lambda: (torch.randint(VOCABULARY, (rows,), device="cuda"),), 256 * rows), (random(VOCABULARY, HIDDEN),))
        operation(contest, f"QKV, {rows} rows", qkv, in_turn(lambda: (
            random(HIDDEN), weight(HEADS * HEAD_DIM, HIDDEN), random(HEADS * HEAD_DIM), weight(KV_HEADS * HEAD_DIM, HIDDEN), random(KV_HEADS * HEAD_DIM),
            weight(KV_HEADS * HEAD_DIM, HIDDEN), random(KV_HEADS * HEAD_DIM), random(rows, KV_HEADS, HEAD_DIM), random(rows, KV_HEADS, HEAD_DIM))),
            (x, *angles, torch.arange(rows, device="cuda")))
        if prompt:
            attention(contest, ((1, PROMPT), (8, PROMPT)))
        else:
            # Without shared prompts: every sequence has its own keys.
            attend(contest, f"attention, decode, {rows} sequences of {PROMPT} + {COMPLETION}", random(rows, HEADS, 1, HEAD_DIM),
                   in_turn(lambda: (random(rows, KV_HEADS, PROMPT + COMPLETION, HEAD_DIM), random(rows, KV_HEADS, PROMPT + COMPLETION, HEAD_DIM))), enable_gqa=True)
        operation(contest, f"output projection, {rows} rows", output_projection, in_turn(lambda: (weight(HIDDEN, HEADS * HEAD_DIM),)), (o, x), "cuBLAS")
        operation(contest, f"feed-forward, {rows} rows", feed_forward,
                  in_turn(lambda: (random(HIDDEN), weight(INTERMEDIATE, HIDDEN), weight(INTERMEDIATE, HIDDEN), weight(HIDDEN, INTERMEDIATE))), (x,))
    patches, x, o = f"{PATCHES:,} patches", random(PATCHES, VISION), random(PATCHES, VISION)
    norm, head_dim = (lambda: (random(VISION), random(VISION))), VISION // VISION_HEADS
    operation(contest, f"patch embedding, {patches}", patch_embedding,
              in_turn(lambda: (random(PATCHES, PATCH_VALUES, dtype=torch.float32),)), (weight(VISION, PATCH_VALUES),))
    operation(contest, f"QKV, vision, {patches}", vision_qkv, in_turn(lambda: (*norm(), weight(3 * VISION, VISION), random(3 * VISION))),
              (x, random(PATCHES, 1, head_dim), random(PATCHES, 1, head_dim)))
    q, k, v = (random(1, VISION_HEADS, PATCHES, head_dim) for _ in range(3))
    attend(contest, f"attention, vision, {patches}", q, [(k, v)])
    operation(contest, f"output projection, vision, {patches}", output_projection, in_turn(lambda: (weight(VISION, VISION), random(VISION))), (o, x))
    operation(contest, f"feed-forward, vision, {patches}", vision_feed_forward,
              in_turn(lambda: (*norm(), weight(4 * VISION, VISION), random(4 * VISION), weight(VISION, 4 * VISION), random(VISION))), (x,))
    operation(contest, f"merger, {patches}", merger,
              in_turn(lambda: (*norm(), weight(4 * VISION, 4 * VISION), random(4 * VISION), weight(HIDDEN, 4 * VISION), random(HIDDEN))), (x,))
    head = [(random(HIDDEN), weight(VOCABULARY, HIDDEN))]
    for rows in (8, 64, 256):
        operation(contest, f"head + draw, {rows} rows", draw, head, (random(rows, HIDDEN),))
        operation(contest, f"head + draw, {rows} rows, top-k 50, top-p 0.95", draw_truncated, head, (random(rows, HIDDEN),))
    operation(contest, "head + log-prob, 256 rows", log_prob, head, (random(256, HIDDEN), torch.randint(VOCABULARY, (256, 1), device="cuda")))


def make_model(layers=LAYERS, depth=32):
    text = dict(hidden_size=HIDDEN, num_hidden_layers=layers, num_attention_heads=HEADS, num_key_value_heads=KV_HEADS, intermediate_size=INTERMEDIATE,
                vocab_size=VOCABULARY, rms_norm_eps=1e-6, tie_word_embeddings=False, max_position_embeddings=32768,
                rope_parameters=dict(rope_type="default", mrope_section=[16, 24, 24], rope_theta=1e6))
    vision = dict(depth=depth, embed_dim=VISION, hidden_size=HIDDEN, num_heads=VISION_HEADS, mlp_ratio=4, patch_size=14)
    config = Qwen2VLConfig(text_config=text, vision_config=vision, image_token_id=151655, vision_start_token_id=151652, vision_end_token_id=151653,
                           tie_word_embeddings=False)
    torch.set_default_dtype(torch.bfloat16)
    with torch.device("cuda"):
        model = Qwen2VLForConditionalGeneration(config).eval()
    torch.set_default_dtype(torch.float32)
    return model


def inputs(prompts):
    ids = torch.randint(0, 150000, (prompts, PROMPT), device="cuda")
    ids[:, 14] = 151652
    ids[:, 15:15 + PATCHES // 4] = 151655
    return dict(input_ids=ids, attention_mask=torch.ones_like(ids), mm_token_type_ids=(ids == 151655).int(),
                pixel_values=random(prompts * PATCHES, PATCH_VALUES), image_grid_thw=torch.tensor([GRID] * prompts, device="cuda"))


def with_model(contest, parts):
    model = make_model()
    if "decode" in parts:
        for sequences in (8, 64, 256):
            # Beyond, generate computes every prompt again for each of its completions.
            if sequences <= 64:
                contest.enter(f"decode step, {sequences} sequences", "transformers.generate", lambda: generate_ms(model, sequences))
            decode_graph(contest, model, sequences)
    if "vision" in parts:
        pixels, grid = random(PATCHES, PATCH_VALUES), torch.tensor([GRID], device="cuda")
        contest.enter(f"vision encoder, {PATCHES:,} patches", "transformers", lambda: median_ms(lambda: model.model.visual(pixels, grid_thw=grid)))
    if "prefill" in parts:
        for prompts in (1, 8):
            batch = inputs(prompts)
            contest.enter(f"prefill, {prompts} × {PROMPT} tokens, images included", "transformers",
                          lambda: median_ms(lambda: model(**batch, logits_to_keep=1)))
    if "grpo" in parts:
        train(contest, model, PROMPT, HIDDEN, VOCABULARY, lambda sequences: generate_ms(model, sequences))


def generate_ms(model, sequences, tokens=40):
    batch = inputs(1)

    def seconds(count):
        torch.cuda.synchronize()
        start = time.perf_counter()
        model.generate(**batch, num_return_sequences=sequences, do_sample=True, top_k=0, min_new_tokens=count, max_new_tokens=count)
        torch.cuda.synchronize()
        return time.perf_counter() - start

    seconds(2)
    short, long = seconds(8), seconds(8 + tokens)
    return (long - short) / tokens * 1e3


def decode_graph(contest, model, sequences):
    """One step over a static cache, recorded as a CUDA graph: what PyTorch can reach, plain and compiled."""
    language, context, length = model.model.language_model, PROMPT + COMPLETION, 768
    embeds = random(sequences, 1, HIDDEN)
    position = torch.tensor([context], device="cuda")
    positions = torch.full((3, sequences, 1), context, device="cuda")
    mask = torch.zeros(sequences, 1, 1, length, device="cuda", dtype=torch.bfloat16)
    mask[..., context + 1:] = float("-inf")

    def measure(wrap=plain):
        cache = StaticCache(config=model.config.get_text_config(), max_cache_len=length)

        def step():
            output = language(inputs_embeds=embeds, attention_mask={"full_attention": mask}, position_ids=positions, past_key_values=cache, use_cache=True,
                              cache_position=position)
            return torch.multinomial(model.lm_head(output.last_hidden_state[:, -1]).float().softmax(-1), 1)

        # The cache takes its memory at the first step, which is better not compiled.
        step()
        wrapped = wrap(step)
        return graph_ms(lambda _: wrapped(), 1)

    contest.enter(f"decode step, {sequences} sequences", "static cache, CUDA graph", measure)
    contest.enter_compiled(f"decode step, {sequences} sequences", "static cache, torch.compile, CUDA graph", measure)


@torch.no_grad()
def run(parts, compile_seconds=0, tell=print):
    """Rows of work, contender, and ms or problem."""
    contest = Contest(compile_seconds, tell)
    if {"vision", "prefill", "decode", "grpo"} & set(parts):
        with_model(contest, parts)
    for part, measure in (("linear", linear), ("attention", attention), ("attention", backward), ("ops", ops)):
        # What the part before had is given back first.
        gc.collect()
        torch.cuda.empty_cache()
        if part in parts:
            measure(contest)
    return contest.rows


def add_arguments(parser):
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)} (all of them)")
    parser.add_argument("--compile", type=float, default=0, metavar="SECONDS", help="also what torch.compile makes of them, in that many seconds in all")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    options = parser.parse_args()
    print(torch.cuda.get_device_name(), "PyTorch", torch.__version__)
    run(options.parts or PARTS, options.compile)
