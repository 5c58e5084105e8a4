#!/usr/bin/env bash
# Checks what tests do not: formatting, lints, style, spelling, dependencies and who may use them, scripts, documents.
# Tools come from scripts/tools.sh. A check that cannot run here is skipped, with the reason, and counted at the end.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/checks.sh

scripts/tools.sh cargo
scripts/libtorch.sh
PATH=$PWD/.tools/python/bin:$PWD/.tools/cargo/bin:$PATH

# Fetches all of Cargo.lock: the build may have needed less of it.
bans() {
    cargo fetch --locked && cargo deny --offline check bans licenses sources
}

advisories() {
    cargo deny fetch || cannot "the database of advisories cannot be downloaded" || return
    cargo deny --offline check advisories
}

unused() {
    cargo machete --with-metadata . || return
    git diff --exit-code --stat Cargo.lock
}

documentation() {
    RUSTDOCFLAGS="-D warnings -A rustdoc::private-intra-doc-links" cargo doc --release --locked --workspace --no-deps --document-private-items
}

pages() {
    have npm || cannot "node and npm are not installed" || return
    npm --prefix tests/page ci --silent --no-fund --no-audit || return
    npm --prefix tests/page run --silent check
}

check "formatting of Rust (rustfmt)" cargo fmt --all --check
check "lints of Rust (clippy)" cargo clippy --release --locked --workspace --all-targets -- -D warnings
# Not a member of the workspace, so nothing else looks at it before `make fuzz`.
check "lints of the fuzz targets (clippy)" \
    cargo clippy --release --locked --manifest-path fuzz/Cargo.toml --target-dir target --all-targets -- -D warnings
check "documentation of Rust (rustdoc)" documentation
check "files of a crate that use each other in a circle" python3 scripts/cycles.py crates/* tests
check "style of code and prose" python3 scripts/style.py
check "Markdown: links and form" python3 scripts/markdown.py
check "tests of these scripts" python3 -m unittest discover --start-directory scripts/tests
check "lints of Python (ruff)" ruff check deploy scripts tests training
check "the pages: format, lints and types (biome, tsc)" pages
check "shell scripts (shellcheck)" shellcheck -x .ci/run scripts/*.sh scripts/gpu/*.sh tests/page/*.sh
check "spelling (typos)" typos
check "who may use what, licences, sources (cargo deny)" bans
check "known vulnerabilities (cargo deny)" advisories
check "unused dependencies (cargo machete)" unused
check "openapi.yaml (the schema of OpenAPI)" openapi-spec-validator openapi.yaml

verdict
