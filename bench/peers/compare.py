"""lriad-fast and its peers on the same GPU, one after the other, as one table in Markdown.

usage: python3 compare.py [--program lriad-fast] [--compile SECONDS] [PART ...]      (parts and --compile are those of peers.py)

What is measured meanwhile goes to standard error, the table to standard output. Peers' rows stand by the names of `lriad-fast bench`; contenders that did not
run are listed below the table with their errors.
"""
import argparse
import functools
import json
import os
import subprocess
import sys
import tempfile


def ours(program, parts):
    """What `lriad-fast bench` measured, as its --json says it."""
    with tempfile.TemporaryDirectory() as folder:
        file = os.path.join(folder, "rows.json")
        try:
            subprocess.run([program, "bench", *parts, "--json", file], check=True, stdout=sys.stderr)
        except (OSError, subprocess.CalledProcessError) as problem:
            sys.exit(f"compare.py: {problem}")
        with open(file, encoding="utf-8") as stream:
            return json.load(stream)


def number(ms):
    """Three digits, as many as a median of fifteen is good for."""
    return f"{ms:.3f}" if ms < 1 else f"{ms:.2f}" if ms < 10 else f"{ms:.1f}" if ms < 100 else f"{ms:.0f}"


def cell(peer):
    return f"{peer['contender']} {'failed' if peer['ms'] is None else number(peer['ms'])}"


def table(rows, peers):
    """Markdown lines: our rows with the peers' beside them, then peers' rows that are not ours, then what went wrong."""
    by_work = {row["name"]: [] for row in rows}
    for peer in peers:
        by_work.setdefault(peer["work"], []).append(peer)
    measured = {row["name"]: row for row in rows}
    yield "| work | ours, ms | floor, ms | of floor | peers, ms | speed-up over the best peer |"
    yield "|---|---|---|---|---|---|"
    for work, beside in by_work.items():
        row, best = measured.get(work), min((peer["ms"] for peer in beside if peer["ms"] is not None), default=None)
        own = ["–"] * 3 if row is None else [number(row["milliseconds"]), number(row["floor"]), f"{row['floor'] / row['milliseconds']:.0%}"]
        gain = "–" if row is None or best is None else f"{best / row['milliseconds']:.2f} ×"
        yield f"| {work} | {' | '.join(own)} | {'; '.join(map(cell, beside)) or '–'} | {gain} |"
    failed = [peer for peer in peers if peer["ms"] is None]
    if failed:
        yield ""
        yield from (f"- {peer['work']}: {peer['contender']}: {peer['problem']}" for peer in failed)


def main():
    # Only an import's cost in memory here; PyTorch takes none of the GPU's before it is asked to.
    import peers
    import torch
    import transformers

    parser = argparse.ArgumentParser()
    parser.add_argument("--program", default="lriad-fast", help="where it lies, unless it is on the PATH")
    peers.add_arguments(parser)
    options = parser.parse_args()
    report = ours(options.program, options.parts)
    device = torch.cuda.get_device_name()
    if device != report["device"]:
        sys.exit(f"compare.py: lriad-fast ran on {report['device']}, PyTorch would on {device}: let CUDA_VISIBLE_DEVICES name one GPU.")
    beside = peers.run(options.parts or peers.PARTS, options.compile, functools.partial(print, file=sys.stderr))
    ceilings = report["ceilings"]
    print(f"{device}: reads {ceilings['read_bytes_per_second'] / 1e12:.2f} TB/s, multiplies {ceilings['flops_per_second'] / 1e12:.0f} TFLOP/s (8192³). "
          f"{report['geometry']}, random weights, bfloat16. PyTorch {torch.__version__}, transformers {transformers.__version__}.\n")
    print("\n".join(table(report["rows"], beside)))


if __name__ == "__main__":
    main()
