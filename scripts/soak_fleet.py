#!/usr/bin/env python3
"""soak_fleet.py [--kills N] [--seed N] [--doors N] [--workers N]: kills and freezes servers of a fleet at random, under load.

Starts a private PostgreSQL (scripts/postgres.sh) and servers with the stand-in worker, and first prints how fast the idle fleet is.
Then clients ask for predictions with webhooks, cancel them, read them, and ask again when they get no answer, while servers are
killed, frozen and stopped, and the database is killed now and then. When all is over and calm, it fails if anything was lost, ended
twice (a trigger in the database refuses that), stays open, was not canceled although a server said so, or if a webhook is missing or
says something else than the server. A prediction that was interrupted twice fails, which is not a fault.
"""

import argparse
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path

from soak.client import Receiver
from soak.figures import Figures
from soak.fleet import Database, Fleet, Pooler
from soak.load import Ledger, Load, settle

ROOT = Path(__file__).resolve().parents[1]
GATES = ("lost", "ended twice", "made twice", "stuck", "accepted cancels that did not cancel", "webhooks that never came")
MAX_SHOWN = 10


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    parser.add_argument("--doors", type=int, default=2, help="servers without workers")
    parser.add_argument("--workers", type=int, default=4, help="servers with a worker")
    parser.add_argument("--lease", type=int, default=3, help="seconds")
    parser.add_argument("--no-figures", action="store_true", help="do not measure the idle fleet first")
    parser.add_argument("--pooler", help="a PgBouncer between servers and database, in transaction mode")
    parser.add_argument("--server", type=Path, default=ROOT / "target/release/syncdiffusion")
    parser.add_argument("--worker", type=Path, default=ROOT / "target/release/stand-in-worker")
    return parser.parse_args()


class Failures:
    """Kills and freezes, of which at most half of the servers of a kind are down at a time."""

    def __init__(self, fleet, ledger, dice):
        self.fleet, self.ledger, self.dice = fleet, ledger, dice
        # What is to happen to a server, and when.
        self.later = []
        # When the database was away last.
        self.without_database = 0
        self.counts = dict.fromkeys(("killed", "frozen", "stopped", "database killed", "started without the database"), 0)

    def wait(self, seconds):
        """Waits, and does what is due meanwhile."""
        deadline = time.monotonic() + seconds
        while True:
            due = min((when for when, _ in self.later), default=deadline)
            time.sleep(max(0, min(due, deadline) - time.monotonic()))
            for item in [item for item in self.later if item[0] <= time.monotonic()]:
                self.later.remove(item)
                item[1]()
            if time.monotonic() >= deadline:
                return

    def look(self):
        """A server that ends by itself is a fault, unless it was started while the database was away; it is started again."""
        for node in self.fleet.nodes:
            if (status := node.ended()) is not None:
                last = (node.log.read_text(errors="replace").splitlines() or [""])[-1]
                if status == 1 and "error: the store failed" in last and time.monotonic() - self.without_database < 30:
                    self.counts["started without the database"] += 1
                else:
                    self.ledger.fault("servers that ended by themselves", f"{node.name}, status {status}: {last}")
                node.start()

    def victim(self):
        kinds = (self.fleet.doors, self.fleet.workers, self.fleet.workers)
        kind = self.dice.choice([kind for kind in kinds if 2 * sum(node.down for node in kind) < len(kind)] or [[]])
        up = [node for node in kind if not node.down]
        return self.dice.choice(up) if len(up) > 1 else None

    def strike(self):
        self.look()
        what, node = self.dice.random(), self.victim()
        if what < 0.05:
            self.counts["database killed"] += 1
            self.fleet.database.tell("kill")
            self.wait(self.dice.uniform(0, 2))
            self.fleet.database.tell("start")
            self.without_database = time.monotonic()
        elif node is None:
            return False
        elif what < 0.35:
            self.counts["frozen"] += 1
            node.freeze()
            # Half of them longer than the lease.
            self.later.append((time.monotonic() + self.dice.uniform(0, 2 * self.fleet.lease), node.thaw))
        elif what < 0.45:
            self.counts["stopped"] += 1
            node.stop()
            node.start()
        else:
            self.counts["killed"] += 1
            node.kill()
            self.later.append((time.monotonic() + self.dice.uniform(0, 1), node.start))
        return True

    def run(self, kills):
        begun, done = time.monotonic(), 0
        while done < kills:
            self.wait(self.dice.expovariate(2))
            struck = self.strike()
            done += struck
            if struck and (done % 50 == 0 or done == kills):
                known = len(self.ledger.known)
                print(f"  {done} of {kills} failures in {time.monotonic() - begun:.0f} s, {known} accepted, {faults(self.ledger)} faults", flush=True)
        while self.later:
            self.wait(0.1)
        self.fleet.until_ready(self.look)


def faults(ledger):
    return sum(map(len, ledger.faults.values()))


def soak(flags, folder):
    dice = random.Random(flags.seed)
    database, receiver, ledger = Database(), Receiver(), Ledger()
    pooler = Pooler(flags.pooler, database) if flags.pooler else None
    url = pooler.url if pooler else database.url
    fleet = Fleet(database, url, flags.server, flags.worker, folder, flags.doors, flags.workers, flags.lease)
    try:
        fleet.start()
        if not flags.no_figures:
            Figures(fleet).print()
        print(f"{flags.kills} failures under load, seed {flags.seed}", flush=True)
        load, failures = Load(fleet, receiver, ledger, flags.seed), Failures(fleet, ledger, dice)
        load.start()
        failures.run(flags.kills)
        load.stop()
        statuses = settle(fleet, receiver, ledger)
        again, refused = database.count("attempts > 1"), 0
        twice = sorted({row for row in database.log().splitlines() if "ends twice" in row and "ERROR" in row})
        for row in twice:
            ledger.fault("ended twice", row)
        for node in fleet.nodes:
            for row in node.log.read_text(errors="replace").splitlines():
                if "ERROR panic" in row:
                    ledger.fault("panics", f"{node.name}: {row}")
                refused += "a prediction is not this server's any more" in row
    finally:
        fleet.close()
        if pooler:
            pooler.close()
        database.close()
    told = sum(map(len, receiver.ends.values()))
    print("servers: " + ", ".join(f"{count} {what}" for what, count in failures.counts.items()))
    print("requests: " + ", ".join(f"{count} {what}" for what, count in ledger.counts.items()))
    print("ends: " + ", ".join(f"{count} {what}" for what, count in statuses.items()))
    print(f"interruptions: {again} ran again and ended, {refused} were another server's when theirs was done")
    print(f"webhooks of ends: {told} delivered for {len(receiver.ends)} predictions, {len(receiver.refused)} refused the first time")
    return ledger


def main():
    flags = arguments()
    for program in (flags.server, flags.worker):
        if not program.exists():
            sys.exit(f"`{program}` does not exist; `make build` builds it")
    folder = tempfile.mkdtemp(prefix="soak-fleet.")
    ledger = soak(flags, folder)
    for kind in dict.fromkeys((*GATES, *ledger.faults)):
        found = ledger.faults.get(kind, [])
        print(f"{len(found):6} {kind}")
        for text in found[:MAX_SHOWN]:
            print(f"         {text}")
    if ledger.faults:
        sys.exit(f"FAILED; the logs are in `{folder}`, and `--seed {flags.seed}` makes the same choices")
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
