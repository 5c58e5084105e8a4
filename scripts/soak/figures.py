"""figures.py: how fast an idle fleet is, seen from a server that does not compute."""

import re
import time
from datetime import datetime

from .client import ENDS, ask

STARTS, CANCELS, FOLLOWED, DEATHS = 200, 40, 3, 5
CLOCK = re.compile(r"clock (\d+)")
# Of the job whose progress is followed.
STEP, STEPS = 0.02, 150
PATIENCE = 60


def at(text):
    return datetime.fromisoformat(text).timestamp()


def started(prediction):
    """When the worker began last, by its own word."""
    return max((int(clock) / 1e6 for clock in CLOCK.findall(prediction["logs"])), default=0)


def share(values, part):
    values = sorted(values)
    return values[min(len(values) - 1, int(len(values) * part))]


def line(what, values, bar, of):
    values = [1000 * value for value in values]
    half, most, worst = share(values, 0.5), share(values, 0.99), max(values)
    print(f"  {what:<46} p50 {half:6.0f} ms  p99 {most:6.0f} ms  worst {worst:6.0f} ms  of {len(values):3} {of}; wanted: {bar}", flush=True)


class Figures:
    def __init__(self, fleet):
        self.fleet, self.numbers = fleet, 0

    def put(self, prompt, steps):
        """Asks a server without workers for a prediction; its id, and when it was asked for."""
        self.numbers += 1
        name, began = f"figure-{self.numbers}", time.time()
        body = {"input": {"prompt": f"clock {prompt}", "num_inference_steps": steps, "width": 512}}
        status, answer = ask(self.door().port, "PUT", f"/predictions/{name}", body, {"prefer": "respond-async"})
        if status != 202:
            raise SystemExit(f"an idle fleet answers {status}: {answer}")
        return name, began

    def door(self):
        return self.fleet.doors[self.numbers % len(self.fleet.doors)]

    def until(self, name, condition):
        """Waits for a prediction, seen from a server without workers."""
        deadline = time.monotonic() + PATIENCE
        while not condition(prediction := ask(self.door().port, "GET", f"/predictions/{name}")[1]):
            if time.monotonic() > deadline:
                raise SystemExit(f"an idle fleet leaves a prediction as it is: {prediction}")
            time.sleep(0.02)
        return prediction

    def ended(self, name):
        return self.until(name, lambda prediction: prediction["status"] in ENDS)

    def starts(self):
        waits = []
        for _ in range(STARTS):
            name, began = self.put("step=1", 1)
            waits.append(started(self.ended(name)) - began)
        line("from a request to its start on another node", waits, "p99 200 ms", "starts")

    def cancels(self):
        waits = []
        for _ in range(CANCELS):
            name, _ = self.put("until=/nowhere", 2)
            self.until(name, lambda prediction: prediction["status"] == "processing")
            began = time.time()
            status, answer = ask(self.door().port, "POST", f"/predictions/{name}/cancel")
            if status != 200:
                raise SystemExit(f"a cancellation is answered {status}: {answer}")
            waits.append(at(self.ended(name)["completed_at"]) - began)
        line("from a cancellation to its end on another node", waits, "150 ms and a batch (here 5 ms)", "cancels")

    def progress(self):
        """How old the step is that another node shows: from when it was done, by the clock and pace of the job."""
        ages = []
        for _ in range(FOLLOWED):
            name, _ = self.put(f"step={STEP * 1000:.0f}", STEPS)
            seen = []
            while (prediction := ask(self.door().port, "GET", f"/predictions/{name}")[1])["status"] not in ENDS:
                if prediction["status"] == "processing":
                    seen.append((time.time(), prediction.get("metrics", {}).get("step", 0)))
                time.sleep(0.03)
            began = started(prediction)
            pace = (at(prediction["completed_at"]) - began) / STEPS
            ages += [when - began - step * pace for when, step in seen if when > began]
        line("age of the progress that another node shows", ages, "1500 ms", "looks")

    def deaths(self):
        waits = []
        for n in range(DEATHS):
            name, _ = self.put("until=/nowhere", 2)
            self.until(name, lambda prediction: prediction["status"] == "processing")
            victim = next(node for node in self.fleet.workers if node.running())
            began = time.time()
            victim.kill()
            again = self.until(name, lambda prediction: started(prediction) > began)
            waits.append(started(again) - began)
            ask(self.door().port, "POST", f"/predictions/{name}/cancel")
            self.ended(name)
            victim.start()
            self.fleet.until_ready()
        line("from the death of a node to its job on another", waits, f"lease {self.fleet.lease} s + 2 s", "deaths")

    def print(self):
        fleet = self.fleet
        print(f"an idle fleet: {len(fleet.doors)} servers without workers, {len(fleet.workers)} with a stand-in worker, lease {fleet.lease} s", flush=True)
        for measure in (self.starts, self.cancels, self.progress, self.deaths):
            measure()
