#!/usr/bin/env bash
# Measures that no client feels another, and what clients cost one another: each figure beside the
# bound that it has to keep. Ends with 1 if one does not. docs/benchmarks.md says how; --help says
# what can be chosen.
#
# Needs a Rust toolchain, Python 3, and strace for the slow disk.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

case " $* " in
  *' -h '* | *' --help '*) ;;
  *) cargo build --quiet --release --bin tow --bin towd ;;
esac
export PYTHONDONTWRITEBYTECODE=1 PYTHONPATH=benches/peers
exec python3 benches/fair/main.py "$@"
