"""A worker of the demo model for benchmarks: a process that is told by frames of JSON what to draw."""

import argparse
import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
JOB = {
    "prompt": "a photo of a mountain range at twilight", "negative_prompt": "", "guidance_scale": 7.5, "sync_weight": 20.0,
    "sync_decay_rate": 0.99, "sync_freq": 1, "stride": 16, "seed": 2, "loop_closure": False,
}  # fmt: skip


class Worker:
    """A worker process: frames of JSON on its pipes."""

    def __init__(self, options: argparse.Namespace) -> None:
        command = [str(options.worker), "--device", options.device, "--dtype", options.dtype]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        self.ended: set[str] = set()
        self.until({"type": "ready"})

    def send(self, **command: object) -> None:
        self.ended.discard(command["job"])
        self.process.stdin.write(json.dumps(command).encode() + b"\n")
        self.process.stdin.flush()

    def event(self) -> dict:
        """The next event; what comes with it is read, and dropped."""
        line = self.process.stdout.readline()
        if not line:
            sys.exit("the worker has ended")
        event = json.loads(line)
        self.process.stdout.read(event.get("bytes", 0))
        if event["type"] in ("failed", "load_failed"):
            sys.exit(f"the worker says: {event['error']}")
        if event["type"] in ("done", "canceled"):
            self.ended.add(event["job"])
        return event

    def until(self, wanted: dict) -> None:
        """Reads events up to the first that has these values."""
        while not wanted.items() <= self.event().items():
            pass

    def end(self) -> None:
        self.process.stdin.close()
        self.process.wait()


def arguments(doc: str) -> argparse.Namespace:
    """Those of a benchmark of a worker."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worker", type=Path, default=ROOT / "target/release/syncdiffusion-worker")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--runs", type=int, default=3)
    return parser.parse_args()
