#!/usr/bin/env bash
# Trains a network on handwritten digits, on whatever GPU there is; without one, on the CPU by way of a Vulkan driver.
# Usage: scripts/demo.sh [options of the example; --help lists them]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

scripts/install-driver.sh
exec cargo run --release --example mnist -- "$@"
