"""load.py: clients that ask for predictions, cancel, read and ask again, and remember what they were promised."""

import random
import threading
import time

from .client import ENDS, REFUSED, ask, end

CLIENTS = 10
# A job of the stand-in worker: milliseconds for a step, and how many steps it has at most.
PACES = (5, 5, 5, 50)
MAX_STEPS = 40
ERRORS = ("interrupted 2 times", "was lost 2 times")


class Known:
    """What is known of an accepted prediction."""

    def __init__(self, hook):
        self.hook = hook
        self.created = None
        # A cancellation was accepted; its client may have left, or its cancellation may have been accepted.
        self.canceled = self.may_be_canceled = False
        self.ends = set()


class Ledger:
    """All that was accepted, and every broken promise."""

    def __init__(self):
        self.known, self.faults, self.lock = {}, {}, threading.Lock()
        self.counts = dict.fromkeys(("asked", "accepted", "asked again", "canceled", "not answered"), 0)

    def fault(self, kind, text):
        with self.lock:
            self.faults.setdefault(kind, []).append(text)

    def count(self, what):
        with self.lock:
            self.counts[what] += 1

    def accept(self, prediction, known):
        """Remembers an accepted prediction; the one that is remembered of its id."""
        with self.lock:
            if prediction["id"] not in self.known:
                self.counts["accepted"] += 1
            return self.known.setdefault(prediction["id"], known)

    def see(self, prediction, where):
        """Compares what a server shows with what was shown before."""
        name, known = prediction["id"], self.known[prediction["id"]]
        with self.lock:
            known.created = known.created or prediction["created_at"]
            if prediction["status"] in ENDS:
                known.ends.add(end(prediction))
        if known.created != prediction["created_at"]:
            self.fault("made twice", f"{name}: {known.created} and {prediction['created_at']} ({where})")
        if len(known.ends) > 1:
            self.fault("ended twice", f"{name}: {sorted(known.ends)} ({where})")


class Load:
    """Clients, each a thread."""

    def __init__(self, fleet, receiver, ledger, seed):
        self.fleet, self.receiver, self.ledger = fleet, receiver, ledger
        self.over = threading.Event()
        self.threads = [threading.Thread(target=self.run, args=(f"{seed}-{n}",), daemon=True) for n in range(CLIENTS)]

    def start(self):
        for thread in self.threads:
            thread.start()

    def stop(self):
        """Waits until every client has its answer."""
        self.over.set()
        for thread in self.threads:
            thread.join(120)
            if thread.is_alive():
                self.ledger.fault("not answered", "a client still asks, 2 minutes after the last failure")

    def run(self, seed):
        dice = random.Random(seed)
        for n in range(1 << 40):
            if self.over.is_set():
                return
            try:
                self.turn(dice, f"{seed}-{n}")
            except Exception as error:
                self.ledger.fault("failed clients", f"{seed}-{n}: {error!r}")
            time.sleep(dice.uniform(0, 0.4))

    def turn(self, dice, name):
        """One prediction, and what its client does with it."""
        prompt, steps = f"step={dice.choice(PACES)} {name}", dice.randint(1, MAX_STEPS)
        body = {"input": {"prompt": prompt, "num_inference_steps": steps, "width": 512, "seed": dice.randrange(1000)}}
        known = Known(hook=dice.random() < 0.7)
        if known.hook:
            body["webhook"] = self.receiver.url + name
            body["webhook_events_filter"] = dice.choice((["completed"], ["start", "output", "logs", "completed"]))
        kind = dice.choice(("put", "put", "put", "key", "wait"))
        headers = {} if kind == "wait" else {"prefer": "respond-async"}
        if kind == "key":
            headers["idempotency-key"] = name
            request = ("POST", "/predictions", body, headers)
        else:
            request = ("PUT", f"/predictions/{name}", body, headers)
        # A client that waits and is cut off has left.
        known.may_be_canceled = kind == "wait"
        self.ledger.count("asked")
        prediction = self.until_accepted(dice, request)
        if prediction is None:
            return
        name = prediction["id"]
        known = self.ledger.accept(prediction, known)
        self.ledger.see(prediction, "accepted")
        if dice.random() < 0.3:
            self.ledger.count("asked again")
            again = self.until_accepted(dice, request)
            if again and again["id"] != name:
                self.ledger.fault("made twice", f"{name}: a repeated request made {again['id']}")
            elif again:
                self.ledger.see(again, "asked again")
        time.sleep(dice.uniform(0, 0.3))
        if dice.random() < 0.25:
            self.cancel(dice, name, known)
        if dice.random() < 0.4:
            time.sleep(dice.uniform(0, 0.5))
            self.read(dice, name)

    def until_accepted(self, dice, request):
        """Asks one server after the other until one accepts; `None` if the run is over before any may have."""
        doubtful = False
        while doubtful or not self.over.is_set():
            node = self.fleet.any(dice)
            try:
                status, answer = ask(node.port, *request)
            except REFUSED:
                self.ledger.count("not answered")
                doubtful = True
                time.sleep(0.05)
                continue
            if status in (200, 202):
                return answer
            if status not in (429, 503):
                self.ledger.fault("wrong answers", f"{node.name}: {request[:2]}: {status} {answer}")
                return None
            # 503 may follow a commit whose answer was lost.
            doubtful = doubtful or "stored" in str(answer)
            time.sleep(dice.uniform(0.05, 0.3))
        return None

    def cancel(self, dice, name, known):
        node = self.fleet.any(dice)
        try:
            status, answer = ask(node.port, "POST", f"/predictions/{name}/cancel")
        except REFUSED:
            known.may_be_canceled = True
            return
        if status == 200:
            known.canceled = True
            self.ledger.count("canceled")
        elif status == 503:
            known.may_be_canceled = True
        elif status != 404:
            self.ledger.fault("wrong answers", f"{node.name}: cancel {name}: {status} {answer}")

    def read(self, dice, name):
        node = self.fleet.any(dice)
        try:
            status, answer = ask(node.port, "GET", f"/predictions/{name}")
        except REFUSED:
            return
        if status == 200:
            self.ledger.see(answer, node.name)
        elif status == 404:
            self.ledger.fault("lost", f"{node.name} does not know {name}")
        elif status != 503:
            self.ledger.fault("wrong answers", f"{node.name}: get {name}: {status} {answer}")


def settle(fleet, receiver, ledger):
    """Waits until nothing is open and no webhook is owed, as long as that comes nearer; then compares everything."""
    database = fleet.database
    for kind, condition in (("stuck", "status IN ('starting', 'processing')"), ("webhooks that stay owed", "owed")):
        fewest, since = database.count(condition), time.monotonic()
        while fewest and time.monotonic() - since < 120:
            time.sleep(0.2)
            now = database.count(condition)
            if now < fewest:
                fewest, since = now, time.monotonic()
        for row in database.sql(f"SELECT id, status, attempts, node, stop FROM syncdiffusion.predictions WHERE {condition} LIMIT 20"):
            ledger.fault(kind, row)
    statuses = dict.fromkeys((*ENDS, "interrupted twice"), 0)
    for name, known in ledger.known.items():
        status, prediction = ask(random.choice(fleet.nodes).port, "GET", f"/predictions/{name}")
        if status != 200:
            ledger.fault("lost", f"{name}: {status} {prediction}")
            continue
        ledger.see(prediction, "at the end")
        compare(name, known, prediction, receiver.ends.get(name, []), ledger, statuses)
    return statuses


def compare(name, known, prediction, told, ledger, statuses):
    """Whether a prediction ended as it had to, and its webhook says the same."""
    status = prediction["status"]
    if status not in ENDS:
        return
    statuses[status] += 1
    if known.canceled and status != "canceled":
        ledger.fault("accepted cancels that did not cancel", f"{name}: {status} {prediction.get('error')}")
    if status == "canceled" and not (known.canceled or known.may_be_canceled):
        ledger.fault("canceled without a request", name)
    if status == "failed":
        statuses["interrupted twice"] += 1
        if not any(error in str(prediction.get("error")) for error in ERRORS):
            ledger.fault("failures without a reason", f"{name}: {prediction.get('error')}")
    if known.hook and not told:
        ledger.fault("webhooks that never came", name)
    for hook, said in told:
        if said != end(prediction):
            ledger.fault("webhooks that say something else", f"{name}, {hook}: {said}, but it is {end(prediction)}")
    if len({hook for hook, _ in told}) > 1:
        ledger.fault("webhooks under two ids", f"{name}: {told}")
