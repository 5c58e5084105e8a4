"""Times a job of 512x512 alone, and beside a job of 3072x3072 in each of its phases, on one worker of the demo model.

    bench_sharing.py [--worker PROGRAM] [--device DEVICE] [--dtype DTYPE] [--runs N]

Prints a Markdown table. The goal is at most three times the time alone, whatever the other job is doing.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
JOB = {
    "prompt": "a photo of a mountain range at twilight", "negative_prompt": "", "guidance_scale": 7.5, "sync_weight": 20.0,
    "sync_decay_rate": 0.99, "sync_freq": 1, "stride": 16, "seed": 2, "loop_closure": False,
}  # fmt: skip
SMALL = JOB | {"width": 512, "height": 512, "num_inference_steps": 50, "sync_threshold": 5}
LARGE = JOB | {"width": 3072, "height": 3072}
# What the large job does, and the event after which the small one comes.
PHASES = {
    "denoises": ({"num_inference_steps": 50, "sync_threshold": 0}, {"type": "batch", "stage": "denoise"}),
    "synchronises": ({"num_inference_steps": 50, "sync_threshold": 50}, {"type": "batch", "stage": "synchronise"}),
    "is decoded": ({"num_inference_steps": 1, "sync_threshold": 0}, {"type": "progress", "job": "large", "step": 1}),
}


class Worker:
    """A worker process: frames of JSON on its pipes."""

    def __init__(self, command: list[str]) -> None:
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        self.ended: set[str] = set()
        self.until({"type": "ready"})

    def send(self, **command: object) -> None:
        self.ended.discard(command["job"])
        self.process.stdin.write(json.dumps(command).encode() + b"\n")
        self.process.stdin.flush()

    def until(self, wanted: dict) -> None:
        """Reads events up to the first that has these values."""
        while line := self.process.stdout.readline():
            event = json.loads(line)
            self.process.stdout.read(event.get("bytes", 0))
            if event["type"] in ("failed", "load_failed"):
                sys.exit(f"the worker says: {event['error']}")
            if event["type"] in ("done", "canceled"):
                self.ended.add(event["job"])
            if wanted.items() <= event.items():
                return
        sys.exit("the worker has ended")

    def small(self) -> float:
        """Seconds of the small job from its command to its picture."""
        start = time.monotonic()
        self.send(type="run", job="small", input=SMALL)
        self.until({"type": "done", "job": "small"})
        return time.monotonic() - start

    def beside(self, large: dict, after: dict) -> float:
        self.send(type="run", job="large", input=LARGE | large)
        self.until(after)
        # Prices are measured by then.
        if after.get("stage") == "synchronise":
            for _ in range(2):
                self.until(after)
        seconds = self.small()
        if "large" not in self.ended:
            self.send(type="cancel", job="large")
            # It may have ended before the worker read that.
            while "large" not in self.ended:
                self.until({"job": "large"})
        return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worker", type=Path, default=ROOT / "target/release/syncdiffusion-worker")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    worker = Worker([str(options.worker), "--device", options.device, "--dtype", options.dtype])
    worker.small()
    alone = statistics.median(worker.small() for _ in range(options.runs))
    print(f"a job of 512x512 takes {alone:.1f} s alone\n")
    print("| while one of 3072x3072 | seconds, median and range | times as long as alone |")
    print("|---|---|---|")
    for name, (large, after) in PHASES.items():
        seconds = [worker.beside(large, after) for _ in range(options.runs)]
        median = statistics.median(seconds)
        print(f"| {name} | {median:.1f} ({min(seconds):.1f} to {max(seconds):.1f}) | {median / alone:.2f} |", flush=True)
    worker.process.stdin.close()
    worker.process.wait()


if __name__ == "__main__":
    main()
