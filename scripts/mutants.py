#!/usr/bin/env python3
"""mutants.py [--seed N] [--sample N] [CRATE...]: changes the code at random places, one at a time, and runs the tests.

A change that no test notices is a `missed` mutant. The sample is drawn by the seed over all changes that cargo-mutants knows
in these crates; it tests each with the tests of `make test` that can notice it. It works in a clone of the last commit, with
a build folder of its own that is kept: target/mutants.
"""

import argparse
import functools
import json
import os
import random
import re
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TREE = ROOT / "target/mutants/tree"
# The packages whose tests can notice a change in a crate. There are only two sets: each new one compiles all dependencies again.
SERVICE = ("prediction", "server", "tests", "weights")
TENSORS = ("panorama", "worker")
TESTED_BY = {
    "panorama": TENSORS,
    "prediction": SERVICE,
    "server": SERVICE,
    "weights": SERVICE,
    "worker": TENSORS,
}
ENVIRONMENT = {
    "CARGO_TARGET_DIR": str(ROOT / "target/mutants/build"),
    "LIBTORCH": os.environ.get("LIBTORCH", str(ROOT / ".libtorch/torch")),
    "OMP_NUM_THREADS": "1",
    # That a property fails is enough; the smallest example of it takes minutes to find.
    "PROPTEST_MAX_SHRINK_ITERS": "0",
}


def mutants(crate, *arguments, **options):
    command = [str(ROOT / ".tools/cargo/bin/cargo-mutants"), "mutants", "--package", crate, *arguments]
    return subprocess.run(command, cwd=TREE, env=os.environ | ENVIRONMENT, **options)


def known(crate):
    listed = mutants(crate, "--list", "--json", check=True, stdout=subprocess.PIPE, text=True).stdout
    return [(crate, mutant["name"]) for mutant in json.loads(listed)]


@functools.cache
def limit(packages):
    """The limit of time for the tests of some packages, in seconds, by a run without any change, which must succeed."""
    command = ["cargo", "test", "--profile=mutants", "--locked", *(f"--package={name}" for name in packages)]
    for arguments in ["--no-run"], []:
        begun = time.monotonic()
        if subprocess.run([*command, *arguments], cwd=TREE, env=os.environ | ENVIRONMENT).returncode:
            sys.exit("the tests fail without any change; fix them first")
    return max(120, 3 * round(time.monotonic() - begun))


def tested(crate, names):
    """What came of each of these mutants: `CaughtMutant`, `MissedMutant`, `Timeout` or `Unviable`."""
    out, packages = ROOT / f"target/mutants/{crate}", TESTED_BY[crate]
    arguments = ["--in-place", "--profile=mutants", "--cargo-arg=--locked", f"--output={out}", "--baseline=skip"]
    arguments += [f"--timeout={limit(packages)}", *(f"--test-package={name}" for name in packages)]
    # 0: all caught; 2: some missed; 3: some ran into the limit of time.
    if mutants(crate, *arguments, *(f"--re=^{re.escape(name)}$" for name in names)).returncode not in (0, 2, 3):
        sys.exit(f"cargo-mutants failed; see {out}/mutants.out/log")
    outcomes = json.loads((out / "mutants.out/outcomes.json").read_text())["outcomes"]
    return [
        (outcome["summary"], outcome["scenario"]["Mutant"]["name"]) for outcome in outcomes if outcome["scenario"] != "Baseline"
    ]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--sample", type=int, default=60, help="mutants, over all crates together")
    parser.add_argument("crate", nargs="*", help=f"some of {', '.join(TESTED_BY)}; all by default")
    options = parser.parse_args()
    subprocess.run(["rm", "-rf", TREE], check=True)
    subprocess.run(["git", "clone", "--quiet", "--shared", ROOT, TREE], check=True)
    every = [mutant for crate in options.crate or TESTED_BY for mutant in known(crate)]
    sample = random.Random(options.seed).sample(every, min(options.sample, len(every)))
    results = []
    for crate in TESTED_BY:
        if names := [name for of, name in sample if of == crate]:
            results += tested(crate, names)
    count = {what: sum(summary == what for summary, _ in results) for what in ("CaughtMutant", "Timeout", "MissedMutant", "Unviable")}
    caught, viable = count["CaughtMutant"] + count["Timeout"], len(results) - count["Unviable"]
    print(f"\nseed {options.seed}: {len(results)} of {len(every)} mutants; {count['Unviable']} do not compile")
    for summary, name in results:
        if summary == "MissedMutant":
            print(f"missed   {name}")
    print(f"{caught} of {viable} caught, {100 * caught / max(viable, 1):.0f} %")


if __name__ == "__main__":
    main()
