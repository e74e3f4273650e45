"""Training with transformers and PEFT, phase by phase: the peer of `lriad-fast bench grpo`. Part of peers.py, which has the model.

As generous as can be: image features are there already, prompts are not padded, logits are computed for completion tokens alone, nothing is recomputed.
"""

import torch
import torch.nn.functional as F
from peft import LoraConfig, get_peft_model
from timing import median_ms
from torch.nn.attention import SDPBackend, sdpa_kernel

GROUP = 8
TOKENS = 200
# Of what takes seconds: once before, then three times.
STEPS = 1, 3


def log_probs(model, embeds, positions, targets):
    hidden = model.base_model.model.model.language_model(inputs_embeds=embeds, position_ids=positions).last_hidden_state[:, -TOKENS - 1:-1]
    logits = model.base_model.model.lm_head(hidden).float()
    return logits.gather(-1, targets[..., None])[..., 0] - logits.logsumexp(-1)


def train(contest, base, prompt, hidden, vocabulary, rollout_ms):
    """rollout_ms(sequences) is what a token of all sequences takes in generate."""
    model = get_peft_model(base, LoraConfig(r=4, lora_alpha=16, lora_dropout=0.1, target_modules=r".*language_model.*\.(q_proj|v_proj)"))
    embeds = torch.randn(GROUP, prompt + TOKENS, hidden, device="cuda", dtype=torch.bfloat16)
    positions = torch.arange(prompt + TOKENS, device="cuda").expand(3, GROUP, -1)
    targets = torch.randint(vocabulary, (GROUP, TOKENS), device="cuda")
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=1e-6)

    def reference(groups):
        with torch.no_grad(), model.disable_adapter():
            for _ in range(groups):
                log_probs(model, embeds, positions, targets)

    def policy(groups):
        with torch.enable_grad():
            for _ in range(groups):
                log_probs(model, embeds, positions, targets).mean().backward()
        optimizer.step()
        optimizer.zero_grad()

    model.train()
    for groups in (1, 8):
        work, phases = f"GRPO {groups} × {GROUP} × {TOKENS}", {}
        torch.cuda.reset_peak_memory_stats()
        for phase, measure in (("reference log-probs", lambda: median_ms(lambda: reference(groups), *STEPS)), ("policy forward + backward", lambda: median_ms(lambda: policy(groups), *STEPS)),
                               ("rollout", lambda: TOKENS * rollout_ms(groups * GROUP))):
            def keep():
                phases[phase] = measure()
                return phases[phase]

            contest.enter(f"{work}: {phase}", "transformers + PEFT", keep)
        if len(phases) == 3:
            contest.enter(f"{work}: whole step", f"transformers + PEFT, {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB", lambda: sum(phases.values()))
    model.unload()


def attention_backward(contest, heads, kv_heads, head_dim, size=(8, 812)):
    sequences, length = size
    q, k, v = (torch.randn(sequences, count, length, head_dim, device="cuda", dtype=torch.bfloat16, requires_grad=True) for count in (heads, kv_heads, kv_heads))
    d_o = torch.randn(sequences, heads, length, head_dim, device="cuda", dtype=torch.bfloat16)
    for name, backend in (("cuDNN", SDPBackend.CUDNN_ATTENTION), ("flash-2", SDPBackend.FLASH_ATTENTION)):
        def measure():
            with torch.enable_grad(), sdpa_kernel(backend):
                o = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)

                def ten():
                    for _ in range(10):
                        torch.autograd.grad(o, (q, k, v), d_o, retain_graph=True)

                return median_ms(ten, *STEPS) / 10

        contest.enter(f"attention backward, causal, {sequences} × {length}", name, measure)
