#!/usr/bin/env bash
# Measures towpath and what a user would pick instead, in one run on one machine, and prints one
# table. docs/benchmarks.md says how; --help says what can be chosen.
#
# Needs a Rust toolchain and Python 3. The peers come from Debian's packages and PyPI and are
# unpacked below the build directory; nothing is installed. One that can't be had is named as missing.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

case " $* " in
  *' -h '* | *' --help '*) ;;
  *) cargo build --quiet --release --bin tow --bin towd ;;
esac
export PYTHONDONTWRITEBYTECODE=1
exec python3 benches/peers/main.py "$@"
