"""How long something takes, the GPU's work included."""
import statistics
import time

import torch


def median_ms(action, warm_ups=3, repeats=15):
    for _ in range(warm_ups):
        action()
    times = []
    for _ in range(repeats):
        torch.cuda.synchronize()
        start = time.perf_counter()
        action()
        torch.cuda.synchronize()
        times.append((time.perf_counter() - start) * 1e3)
    return statistics.median(times)
