"""Checks values that must agree across files: the toolchain, the user, the grace period, the paths of probes."""

import pathlib
import re
import tomllib

import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
LAST_ANSWERS = 5  # crates/server/src/serve.rs


def read(path):
    return (ROOT / path).read_text()


def seconds(text):
    """The seconds of `2m20s`."""
    units = {"h": 3600, "m": 60, "s": 1, "": 1}
    return sum(int(number) * units[unit] for number, unit in re.findall(r"(\d+)([hms]?)", str(text)))


def grace(words):
    return seconds(words[words.index("--grace") + 1])


def equal(what, values):
    if len(set(values.values())) != 1:
        raise SystemExit(f"{what}: {values}")


dockerfile = read("Dockerfile")
toolchain = tomllib.loads(read("rust-toolchain.toml"))["toolchain"]["channel"]
equal("the toolchain", {"Dockerfile": re.search(r"^ARG RUST=(.+)$", dockerfile, re.M)[1], "rust-toolchain.toml": toolchain})

manifests = list(yaml.safe_load_all(read("deploy/kubernetes/base/statefulset.yaml")))
pod = manifests[0]["spec"]["template"]["spec"]
server = pod["containers"][0]
compose = yaml.safe_load(read("deploy/compose.yaml"))["services"]["server"]
unit = read("deploy/systemd/syncdiffusion.service")

equal(
    "the user",
    {
        "account.sh": re.search(r"--uid (\d+)", read("deploy/image/account.sh"))[1],
        "Dockerfile": re.search(r"^USER (\d+):\1$", dockerfile, re.M)[1],
        "statefulset.yaml": str(pod["securityContext"]["runAsUser"]),
        "clean-root.sh": re.search(r"--userspec=(\d+):\1", read("deploy/image/clean-root.sh"))[1],
        "compose.yaml": re.search(r"uid=(\d+)", str(compose["tmpfs"]))[1],
    },
)

before = server["lifecycle"]["preStop"]["sleep"]["seconds"]
start = re.search(r"^ExecStart=(.+)$", unit, re.M)[1].split()
for where, given, needed in [
    ("statefulset.yaml", pod["terminationGracePeriodSeconds"], before + grace(server["args"])),
    ("compose.yaml", seconds(compose["stop_grace_period"]), grace(compose["command"])),
    ("syncdiffusion.service", int(re.search(r"^TimeoutStopSec=(\d+)$", unit, re.M)[1]), grace(start)),
]:
    if given < needed + LAST_ANSWERS:
        raise SystemExit(f"{where}: the server is killed after {given} seconds but may need {needed + LAST_ANSWERS}")

paths = yaml.safe_load(read("openapi.yaml"))["paths"]
for path in [server["readinessProbe"]["httpGet"]["path"], server["livenessProbe"]["httpGet"]["path"]]:
    if path not in paths:
        raise SystemExit(f"`{path}` is probed but not served")
if "GET /ready " not in read("deploy/image/healthcheck.sh"):
    raise SystemExit("healthcheck.sh does not ask /ready")
