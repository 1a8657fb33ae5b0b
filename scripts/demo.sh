#!/usr/bin/env bash
# Trains a network on handwritten digits, on whatever GPU there is; without one, on the CPU by way of a Vulkan driver.
# Usage: scripts/demo.sh [options of the example; --help lists them]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

scripts/install-driver.sh

# Mesa complains where there is no private folder for sockets.
if [ -z "${XDG_RUNTIME_DIR-}" ]; then
  XDG_RUNTIME_DIR="$(mktemp -d)"
  chmod 700 "$XDG_RUNTIME_DIR"
  export XDG_RUNTIME_DIR
fi
exec cargo run --release --example mnist -- "$@"
