#!/usr/bin/env bash
# Runs every test: units, integration tests on each adapter present, documentation examples.
# Usage: scripts/test.sh [arguments of cargo test]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

scripts/install-driver.sh --gl

log="$(mktemp)"
runtime=''
trap 'rm -rf "$log" ${runtime:+"$runtime"}' EXIT

# Mesa's EGL complains where there is no private folder for sockets.
if [ -z "${XDG_RUNTIME_DIR-}" ]; then
  runtime="$(mktemp -d)"
  chmod 700 "$runtime"
  export XDG_RUNTIME_DIR="$runtime"
fi

# Under Cargo's test profile, which is optimised (see Cargo.toml).
status=0
cargo test --no-fail-fast "$@" 2>&1 | tee "$log" || status=$?

# One line for all of cargo's "test result: ok. 12 passed; 0 failed; 1 ignored; ..." lines.
awk '/^test result: / {
  for (i = 2; i <= NF; i++) {
    if ($i ~ /^passed/) passed += $(i - 1)
    if ($i ~ /^failed/) failed += $(i - 1)
    if ($i ~ /^ignored/) skipped += $(i - 1)
  }
}
END {
  printf "%d passed, %d failed", passed, failed
  if (skipped) printf ", %d skipped", skipped
  print ""
}' "$log"
exit "$status"
