"""Times a job of 1024x512 with a preview after each step, and without, in turn, on one worker of the demo model.

    bench_previews.py [--worker PROGRAM] [--device DEVICE] [--dtype DTYPE] [--runs N]

Prints a Markdown table.
"""

import statistics
import time

from worker import JOB, Worker, arguments

STEPS = 20
INPUT = JOB | {"width": 1024, "height": 512, "num_inference_steps": STEPS, "sync_threshold": 0, "guidance_scale": 1.0}


def draw(worker: Worker, previews: bool) -> tuple[float, int]:
    """Seconds of the job from its command to its picture, and how many previews came."""
    came = 0
    start = time.monotonic()
    worker.send(type="run", job="drawn", input=INPUT)
    while "drawn" not in worker.ended:
        event = worker.event()
        came += event["type"] == "preview"
        if previews and event["type"] == "progress":
            worker.send(type="preview", job="drawn")
    return time.monotonic() - start, came


def main() -> None:
    options = arguments(__doc__)
    worker = Worker(options)
    draw(worker, previews=False)  # From which it learns what previews look like.
    pairs = [(draw(worker, previews=False), draw(worker, previews=True)) for _ in range(options.runs)]
    worker.end()
    print("| previews | seconds, median and range |")
    print("|---|---|")
    for column in range(2):
        seconds, came = zip(*(pair[column] for pair in pairs))
        print(f"| {min(came)} | {statistics.median(seconds):.2f} ({min(seconds):.2f} to {max(seconds):.2f}) |")
    ratios = [with_previews / without for (without, _), (with_previews, _) in pairs]
    print(f"\nwith / without, pair by pair: {statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})")


if __name__ == "__main__":
    main()
