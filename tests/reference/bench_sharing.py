"""Times a job of 512x512 alone, and beside a job of 3072x3072 in each of its phases, on one worker of the demo model.

    bench_sharing.py [--worker PROGRAM] [--device DEVICE] [--dtype DTYPE] [--runs N]

Prints a Markdown table. The goal is at most three times the time alone, whatever the other job is doing.
"""

import statistics
import time

from worker import JOB, Worker, arguments

SMALL = JOB | {"width": 512, "height": 512, "num_inference_steps": 50, "sync_threshold": 5}
LARGE = JOB | {"width": 3072, "height": 3072}
# What the large job does, and the event after which the small one comes.
PHASES = {
    "denoises": ({"num_inference_steps": 50, "sync_threshold": 0}, {"type": "batch", "stage": "denoise"}),
    "synchronises": ({"num_inference_steps": 50, "sync_threshold": 50}, {"type": "batch", "stage": "synchronise"}),
    "is decoded": ({"num_inference_steps": 1, "sync_threshold": 0}, {"type": "progress", "job": "large", "step": 1}),
}


def small(worker: Worker) -> float:
    """Seconds of the small job from its command to its picture."""
    start = time.monotonic()
    worker.send(type="run", job="small", input=SMALL)
    worker.until({"type": "done", "job": "small"})
    return time.monotonic() - start


def beside(worker: Worker, large: dict, after: dict) -> float:
    worker.send(type="run", job="large", input=LARGE | large)
    worker.until(after)
    # Prices are measured by then.
    if after.get("stage") == "synchronise":
        for _ in range(2):
            worker.until(after)
    seconds = small(worker)
    if "large" not in worker.ended:
        worker.send(type="cancel", job="large")
        # It may have ended before the worker read that.
        while "large" not in worker.ended:
            worker.until({"job": "large"})
    return seconds


def main() -> None:
    options = arguments(__doc__)
    worker = Worker(options)
    small(worker)
    alone = statistics.median(small(worker) for _ in range(options.runs))
    print(f"a job of 512x512 takes {alone:.1f} s alone\n")
    print("| while one of 3072x3072 | seconds, median and range | times as long as alone |")
    print("|---|---|---|")
    for name, (large, after) in PHASES.items():
        seconds = [beside(worker, large, after) for _ in range(options.runs)]
        median = statistics.median(seconds)
        print(f"| {name} | {median:.1f} ({min(seconds):.1f} to {max(seconds):.1f}) | {median / alone:.2f} |", flush=True)
    worker.end()


if __name__ == "__main__":
    main()
