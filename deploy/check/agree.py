"""Checks values that must agree across files: the toolchain, the user, the grace period, the paths of probes, names of a fleet."""

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
fleet = yaml.safe_load(read("deploy/compose.fleet.yaml"))["services"]
overlay = [
    manifest for path in sorted((ROOT / "deploy/kubernetes/overlays/fleet").glob("*.yaml")) for manifest in yaml.safe_load_all(path.read_text())
]
deployments = {manifest["metadata"]["name"]: manifest["spec"]["template"] for manifest in overlay if manifest["kind"] == "Deployment"}
unit = read("deploy/systemd/syncdiffusion.service")

equal(
    "the user",
    {
        "account.sh": re.search(r"--uid (\d+)", read("deploy/image/account.sh"))[1],
        "Dockerfile": re.search(r"^USER (\d+):\1$", dockerfile, re.M)[1],
        "statefulset.yaml": str(pod["securityContext"]["runAsUser"]),
        "clean-root.sh": re.search(r"--userspec=(\d+):\1", read("deploy/image/clean-root.sh"))[1],
        "compose.yaml": re.search(r"uid=(\d+)", str(compose["tmpfs"]))[1],
        "compose.fleet.yaml": re.search(r"uid=(\d+)", str(fleet["api"]["tmpfs"]))[1],
        **{f"overlays/fleet, {name}": str(template["spec"]["securityContext"]["runAsUser"]) for name, template in deployments.items()},
    },
)


def pod_needs(container):
    """Seconds before SIGTERM, and after it."""
    return container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0) + grace(container["args"])


start = re.search(r"^ExecStart=(.+)$", unit, re.M)[1].split()
# A flag would override /etc/syncdiffusion.env; what stops the server must agree with TimeoutStopSec.
if start[1:] != ["serve", "--grace", start[-1]]:
    raise SystemExit(f"syncdiffusion.service: set `{' '.join(start[1:])}` by variables, all but --grace")
if not re.search(r"^Environment=SYNCDIFFUSION_ALLOW_PRIVATE_URLS=false$", unit, re.M):
    raise SystemExit("syncdiffusion.service: clients of a proxy on the same machine reach private addresses")
stage = re.search(r"^FROM programs AS with-sd2$(.*?)^FROM ", dockerfile, re.M | re.S)
if "SYNCDIFFUSION_TOKENIZER=hosted" not in stage[1]:
    raise SystemExit("Dockerfile: a model that is named by its path is not tokenized as the hosted model")
for where, given, needed in [
    ("statefulset.yaml", pod["terminationGracePeriodSeconds"], pod_needs(server)),
    ("compose.yaml", seconds(compose["stop_grace_period"]), grace(compose["command"])),
    *((f"compose.fleet.yaml, {name}", seconds(fleet[name]["stop_grace_period"]), grace(fleet[name]["command"])) for name in ("api", "worker")),
    *(
        (f"overlays/fleet, {name}", template["spec"]["terminationGracePeriodSeconds"], pod_needs(template["spec"]["containers"][0]))
        for name, template in deployments.items()
    ),
    ("syncdiffusion.service", int(re.search(r"^TimeoutStopSec=(\d+)$", unit, re.M)[1]), grace(start)),
]:
    if given < needed + LAST_ANSWERS:
        raise SystemExit(f"{where}: the server is killed after {given} seconds but may need {needed + LAST_ANSWERS}")

paths = yaml.safe_load(read("openapi.yaml"))["paths"]
servers = [server, *(template["spec"]["containers"][0] for template in deployments.values())]
for path in [container[probe]["httpGet"]["path"] for container in servers for probe in ("readinessProbe", "livenessProbe")]:
    if path not in paths:
        raise SystemExit(f"`{path}` is probed but not served")
if "GET /ready " not in read("deploy/image/healthcheck.sh"):
    raise SystemExit("healthcheck.sh does not ask /ready")

# What the manifests of a fleet call each other.
cluster = next(manifest for manifest in overlay if manifest["kind"] == "Cluster")
labels = [template["metadata"]["labels"] for template in deployments.values()] + [{"cnpg.io/cluster": cluster["metadata"]["name"]}]


def selectors(value):
    """Every selector of pods of this namespace."""
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        if key in ("podSelector", "selector", "labelSelector"):
            yield inner.get("matchLabels", inner)
        else:
            yield from selectors(inner)


for manifest in overlay:
    for selector in selectors(manifest):
        if not any(selector.items() <= known.items() for known in labels):
            raise SystemExit(f"overlays/fleet: no pod has the labels {selector} of {manifest['kind']} `{manifest['metadata']['name']}`")
    target = manifest.get("spec", {}).get("scaleTargetRef")
    if target and target["name"] not in deployments:
        raise SystemExit(f"overlays/fleet: there is no Deployment `{target['name']}` to scale")
# The operator of the database makes two; docs/fleet.md says how to make the others.
made = {f"{cluster['metadata']['name']}-{what}" for what in ("app", "ca")}
made |= {"syncdiffusion", cluster["spec"]["managed"]["roles"][0]["passwordSecret"]["name"]}
text = read("deploy/kubernetes/overlays/fleet/api.yaml") + read("deploy/kubernetes/overlays/fleet/gpu.yaml")
used = set(re.findall(r"secretKeyRef: { name: ([\w-]+)|secretName: ([\w-]+)", text))
used = {name for pair in used for name in pair if name}
used |= {item["name"] for manifest in overlay if manifest["kind"] == "TriggerAuthentication" for item in manifest["spec"]["secretTargetRef"]}
if unknown := used - made:
    raise SystemExit(f"overlays/fleet: nobody makes the secrets {', '.join(sorted(unknown))}")
