#!/usr/bin/env bash
# Checks what tests do not: form, lints, spelling, dependencies and who may use them, scripts, the OpenAPI document.
# Tools come from scripts/tools.sh; what could not be checked is told, and counted at the end.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/checks.sh

scripts/tools.sh cargo
scripts/libtorch.sh
PATH=$PWD/.tools/python/bin:$PWD/.tools/cargo/bin:$PATH

# All of Cargo.lock, for the build may have needed less of it.
bans() {
    cargo fetch --locked && cargo deny --offline check bans licenses sources
}

advisories() {
    cargo deny fetch || cannot "the database of advisories cannot be fetched from here" || return
    cargo deny --offline check advisories
}

unused() {
    cargo machete --with-metadata . || return
    git diff --exit-code --stat Cargo.lock
}

check "format of Rust (rustfmt)" cargo fmt --all --check
check "lints of Rust (clippy)" cargo clippy --release --locked --workspace --all-targets -- -D warnings
# Not a member of the workspace; it would be built last of all, long after the tests.
check "lints of what fuzzes (clippy)" \
    cargo clippy --release --locked --manifest-path fuzz/Cargo.toml --target-dir target --all-targets -- -D warnings
check "lints of Python (ruff)" ruff check deploy scripts tests training
check "shell scripts (shellcheck)" shellcheck -x .ci/run scripts/*.sh
check "spelling (typos)" typos
check "who may use what, licences, sources (cargo deny)" bans
check "known vulnerabilities (cargo deny)" advisories
check "dependencies without use (cargo machete)" unused
check "openapi.yaml (the schema of OpenAPI)" openapi-spec-validator openapi.yaml

verdict
