"""Random and degenerate evaluations with scikit-learn's figures, for tests/Engine.Tests/Golden/metrics.json.gz.

    python bench/peers/metrics_cases.py tests/Engine.Tests/Golden/metrics.json.gz

Needs scikit-learn 1.3 or later. What a figure needs is asked before scikit-learn is (it answers 0, nan, a warning or an error
where there is nothing to compute, and not the same in every version); where it does not exist it is null.
"""
import gzip
import json
import random
import sys

import sklearn
from sklearn.metrics import accuracy_score, average_precision_score, balanced_accuracy_score, f1_score, precision_score, recall_score, roc_auc_score

CASES = 200
RULES = ("wrong", "normal", "defect", "drop")


def draw(rng, number):
    """Labels (1: defect), verdicts (null: an invalid answer) and scores of one case; the first ones are the odd ones."""
    kind = ("one image", "defects alone", "normals alone", "all invalid", "constant scores", "two scores", "all right", "all wrong", "ranked", "ranked backwards")[number % 40] if number % 40 < 10 else "any"
    count = 1 if kind == "one image" else rng.choice((2, 3, 5, 10, 30, 100, 300))
    share = rng.choice((0.05, 0.12, 0.3, 0.5, 0.9))
    labels = [1 if kind == "defects alone" else 0 if kind == "normals alone" else int(rng.random() < share) for _ in range(count)]
    invalid = 1.0 if kind == "all invalid" else rng.choice((0.0, 0.1, 0.5))
    right = rng.choice((0.3, 0.6, 0.9))
    verdicts = [None if rng.random() < invalid else label if rng.random() < right else 1 - label for label in labels]
    if kind in ("all right", "all wrong"):
        verdicts = [label if kind == "all right" else 1 - label for label in labels]
    digits = rng.choice((0, 1, 16))
    scores = [round(rng.gauss(label, 1.5), digits) for label in labels]
    if kind == "constant scores":
        scores = [0.25] * count
    elif kind == "two scores":
        scores = [rng.choice((-1.0, 1.0)) for _ in labels]
    elif kind in ("ranked", "ranked backwards"):
        scores = [(i / count + label) * (1 if kind == "ranked" else -1) for i, label in enumerate(labels)]
    return labels, verdicts, scores


def figures(labels, verdicts, scores, rule):
    said = {"wrong": lambda label: 1 - label, "normal": lambda label: 0, "defect": lambda label: 1, "drop": lambda label: None}[rule]
    pairs = [(label, said(label) if verdict is None else verdict) for label, verdict in zip(labels, verdicts)]
    true = [label for label, verdict in pairs if verdict is not None]
    pred = [verdict for _, verdict in pairs if verdict is not None]
    both = 0 in true and 1 in true

    # A score is there whatever became of the answer, so every image counts.
    ranked = 0 in labels and 1 in labels
    return {
        "n": len(true),
        "accuracy": float(accuracy_score(true, pred)) if true else None,
        "f1_macro": float(f1_score(true, pred, labels=[0, 1], average="macro")) if both else None,
        "balanced_accuracy": float(balanced_accuracy_score(true, pred)) if both else None,
        "recall": float(recall_score(true, pred, pos_label=1, average="binary")) if 1 in true else None,
        "specificity": float(recall_score([1 - label for label in true], [1 - verdict for verdict in pred], pos_label=1, average="binary")) if 0 in true else None,
        "precision": float(precision_score(true, pred, pos_label=1, average="binary")) if 1 in pred else None,
        "auroc": float(roc_auc_score(labels, scores)) if ranked else None,
        "average_precision": float(average_precision_score(labels, scores)) if 1 in labels else None,
    }


def main(file):
    rng = random.Random(20240917)
    cases = []
    for number in range(CASES):
        labels, verdicts, scores = draw(rng, number)
        rule = RULES[number // 40 % 4 if number % 40 < 10 else rng.randrange(4)]
        cases.append({"defect": labels, "verdict": verdicts, "score": scores, "invalid": rule, "figures": figures(labels, verdicts, scores, rule)})

    text = json.dumps({"scikit_learn": sklearn.__version__, "cases": cases}, allow_nan=False)
    with open(file, "wb") as raw, gzip.GzipFile(filename="", fileobj=raw, mode="wb", mtime=0) as packed:
        packed.write(text.encode("ascii"))
    missing = {name: sum(case["figures"][name] is None for case in cases) for name in cases[0]["figures"]}
    print(f"{CASES} cases by scikit-learn {sklearn.__version__} to {file}; nulls: {missing}")


if __name__ == "__main__":
    main(*sys.argv[1:])
