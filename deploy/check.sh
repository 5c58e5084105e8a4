#!/usr/bin/env bash
# Checks everything in deploy/ with the tool for its kind, and that the files agree with each other and with the program.
# Tools come from scripts/tools.sh or from the machine. A check that cannot run here is skipped, with the reason.
set -euo pipefail
cd "$(dirname "$0")"
. ../scripts/checks.sh

../scripts/tools.sh
tools=$(cd .. && pwd)/.tools/python
PATH=$tools/bin:$PATH

# Unpacks a program of a Debian package into the folder of tools, without installing the package.
from_debian() { # PROGRAM PACKAGE
    if have "$1"; then return; fi
    have apt-get && have dpkg || return 77
    mkdir -p "$tools/debian"
    (cd "$tools/debian" && apt-get download -qq "$2" && dpkg -x "$2"_*.deb . && rm "$2"_*.deb) >/dev/null 2>&1 || return 77
    ln -sf "../debian/usr/bin/$1" "$tools/bin/$1"
}

compose() {
    check-jsonschema --builtin-schema vendor.compose-spec compose.yaml compose.*.yaml
}

compose_config() {
    docker compose version >/dev/null 2>&1 || cannot "docker compose is not installed" || return
    docker compose -f compose.yaml --profile monitoring config --quiet &&
        docker compose -f compose.yaml -f compose.gpu.yaml config --quiet &&
        AWS_ACCESS_KEY_ID=a AWS_SECRET_ACCESS_KEY=b docker compose -f compose.yaml -f compose.s3.yaml config --quiet || return
    local -x POSTGRES_PASSWORD=a AWS_ACCESS_KEY_ID=a AWS_SECRET_ACCESS_KEY=b
    docker compose -f compose.fleet.yaml --profile monitoring config --quiet &&
        docker compose -f compose.fleet.yaml -f compose.fleet.gpu.yaml config --quiet
}

kubernetes() { # FOLDER
    # The oldest supported version of Kubernetes, and the newest that the tool knows.
    kubectl kustomize "kubernetes/$1" >"$scratch/manifests.yaml" &&
        kubernetes-validate --strict -k 1.30 "$scratch/manifests.yaml" &&
        kubernetes-validate --strict -k 1.37 "$scratch/manifests.yaml"
}

custom() { # FOLDER
    kubectl kustomize "kubernetes/$1" >"$scratch/manifests.yaml" && python check/custom.py <"$scratch/manifests.yaml"
}

scaling() {
    kubectl kustomize kubernetes/overlays/fleet >"$scratch/manifests.yaml" && python check/scaling.py <"$scratch/manifests.yaml"
}

unit() {
    have systemd-analyze || cannot "systemd-analyze is not installed" || return
    # The program is not installed where the check runs.
    sed 's|^ExecStart=/opt/syncdiffusion/syncdiffusion|ExecStart=/bin/true|' systemd/syncdiffusion.service >"$scratch/syncdiffusion.service" &&
        systemd-analyze verify --man=no "$scratch/syncdiffusion.service" 2>"$scratch/complaints" &&
        # It reports what it does not know, and succeeds all the same.
        ! grep -F "$scratch/syncdiffusion.service" "$scratch/complaints" &&
        systemd-analyze security --offline=true --threshold=25 --no-pager "$scratch/syncdiffusion.service"
}

rules() {
    from_debian promtool prometheus || cannot "promtool is not installed, and Debian's package could not be downloaded" || return
    promtool check config prometheus/prometheus.yml prometheus/prometheus.fleet.yml &&
        promtool test rules prometheus/alerts.test.yml prometheus/alerts.fleet.test.yml
}

dashboard() {
    from_debian promtool prometheus || cannot "promtool is not installed, and Debian's package could not be downloaded" || return
    python check/dashboard.py grafana/dashboards/*.json >"$scratch/dashboard.yml" && promtool check rules "$scratch/dashboard.yml"
}

counted_once() {
    from_debian promtool prometheus || cannot "promtool is not installed, and Debian's package could not be downloaded" || return
    python check/counted_once.py grafana/dashboards/fleet.json >"$scratch/counted_once.yml" && promtool test rules "$scratch/counted_once.yml"
}

sbom() {
    have cargo || cannot "cargo is not installed" || return
    for device in cpu cuda; do
        image/sbom.py "$device" >"$scratch/sbom.json" && python check/sbom.py "$scratch/sbom.json" || return
    done
}

check "shell scripts (shellcheck)" shellcheck -x check.sh image/*.sh
check "Dockerfile (hadolint)" hadolint ../Dockerfile
check "compose files (their schema)" compose
check "compose files (docker compose config)" compose_config
for folder in base overlays/a40; do check "kubernetes/$folder (kustomize, the schemas of Kubernetes)" kubernetes "$folder"; done
check "kubernetes/overlays/fleet (kustomize, the schemas of Kubernetes; without its Cluster, ScaledObject, TriggerAuthentication)" \
    kubernetes overlays/fleet
check "kubernetes/overlays/fleet: Cluster, ScaledObject, TriggerAuthentication (the schemas of CloudNativePG and KEDA)" custom overlays/fleet
check "kubernetes/overlays/fleet: what it scales by (PostgreSQL, the tables of the program)" scaling
check "systemd unit (systemd-analyze)" unit
check "Prometheus: configuration and a test of every alert (promtool)" rules
check "Grafana: every query of the dashboard (promtool)" dashboard
check "Grafana: what all servers of a fleet report is counted once (promtool)" counted_once
check "nginx: syntax, TLS, events, cancellation (a running nginx)" python check/proxy.py
check "nginx in front of a fleet: events, cancellation, servers that are gone, stop or die (a running nginx)" python check/proxy.py --fleet
check "nginx in front of the built server" python check/proxy.py --server
check "software bill of materials (the schema of CycloneDX)" sbom
check "cog.yaml, predictor and labels against openapi.yaml" python check/cog.py
check "toolchain, user and grace period agree in all files" python check/agree.py
check "messages that docs/troubleshooting.md explains exist" python check/messages.py
check "settings and metrics that deploy/ uses exist" python check/names.py

verdict
