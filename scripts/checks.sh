# shellcheck shell=bash
# Sourced by scripts that check things: runs checks, counts them, and reports those that could not run.

passed=0 failed=0 skipped=0
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

# Runs a check. Exit code 77 means that it cannot run here; the last line that it printed says why.
check() { # WHAT COMMAND...
    local what=$1 code=0
    shift
    "$@" >"$scratch/output" 2>&1 || code=$?
    case $code in
        0) passed=$((passed + 1)) && printf 'passed   %s\n' "$what" ;;
        77) skipped=$((skipped + 1)) && printf 'SKIPPED  %s: %s\n' "$what" "$(tail -n 1 "$scratch/output")" ;;
        *) failed=$((failed + 1)) && printf 'FAILED   %s\n' "$what" && sed 's/^/         /' "$scratch/output" ;;
    esac
}

cannot() { echo "$*"; return 77; }
have() { command -v "$1" >/dev/null; }

# Call this last: prints the counts, and fails if a check failed.
verdict() {
    echo "$passed passed, $failed failed, $skipped skipped"
    [ "$failed" = 0 ]
}
