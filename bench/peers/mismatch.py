"""How far a token's log-prob when drawn is from the same token's in one pass over the whole text, with transformers: what `lriad-fast bench grpo` says of ours.

usage: python3 mismatch.py

A model of Qwen2-VL-7B's sizes with random bfloat16 weights, eight sequences of 608 random tokens and 32 drawn ones, attention by PyTorch. Beside it how far the
bfloat16 pass is from a float32 one of the same weights: two ways of rounding cannot be expected to agree better than either does with what they round.
"""
import torch
from peers import PROMPT, VOCABULARY, make_model

SEQUENCES = 8
TOKENS = 32


def log_prob(logits, ids):
    return logits.float().log_softmax(-1).gather(-1, ids[..., None])[..., 0]


def whole(model, ids):
    """Log-probs of the tokens behind the prompt, sequence by sequence."""
    return torch.cat([log_prob(model(input_ids=row[None], logits_to_keep=TOKENS + 1).logits[:, :-1], row[None, PROMPT:]) for row in ids])


def draw(model, ids):
    drawn, cache, step = [], None, ids
    for _ in range(TOKENS):
        out = model(input_ids=step, past_key_values=cache, use_cache=True, logits_to_keep=1)
        cache, logits = out.past_key_values, out.logits[:, -1]
        step = torch.multinomial(logits.float().softmax(-1), 1)
        ids = torch.cat([ids, step], 1)
        drawn.append(log_prob(logits, step[:, 0]))
    return ids, torch.stack(drawn, 1)


def main():
    model = make_model()
    with torch.no_grad():
        ids, drawn = draw(model, torch.randint(VOCABULARY - 2000, (SEQUENCES, PROMPT), device="cuda"))
        again = whole(model, ids)
        exact = whole(model.float(), ids)
    for what, other in (("drawn, one pass", drawn), ("float32, one pass", exact)):
        print(f"{what}: {(again - other).abs().mean().item():.5f} a token on average, {(again - other).abs().max().item():.3f} at most")


if __name__ == "__main__":
    main()
