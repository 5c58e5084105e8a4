"""Checks that the program has every setting that deploy/ uses, and every metric that alerts, dashboard and autoscaler read."""

import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"


def texts(folder, *endings):
    return "\n".join(path.read_text() for path in sorted(folder.rglob("*")) if path.suffix in endings)


metrics = ROOT / "docs/operating.md"
if not metrics.exists():
    print("docs/operating.md, which lists the metrics, does not exist")
    sys.exit(77)

source = texts(ROOT / "crates/server/src", ".rs")
known = set(re.findall(r'env = "(\w+)"', source))
used = set(re.findall(r"\bSYNCDIFFUSION_\w+", texts(DEPLOY, ".yaml", ".service") + (ROOT / "Dockerfile").read_text()))
if missing := used - known:
    sys.exit(f"unknown settings: {', '.join(sorted(missing))}")
flags = {flag.replace("_", "-") for flag in re.findall(r"^    (?:pub\(crate\) )?(\w+): ", source, re.M)}
used = set(re.findall(r"--([a-z][a-z-]+)", texts(DEPLOY / "kubernetes", ".yaml") + (DEPLOY / "systemd/syncdiffusion.service").read_text()))
if missing := used - flags:
    sys.exit(f"unknown flags: {', '.join('--' + flag for flag in sorted(missing))}")

listed = set(re.findall(r"^\| `(syncdiffusion_\w+)`", metrics.read_text(), re.M))
read = set(re.findall(r"\bsyncdiffusion_\w+", texts(DEPLOY, ".json", ".yml") + texts(DEPLOY / "kubernetes/components", ".yaml")))
# Prometheus derives three series from a histogram.
plain = {re.sub(r"_(bucket|sum|count)$", "", name) for name in read}
if missing := plain - listed:
    sys.exit(f"unknown metrics: {', '.join(sorted(missing))}")
