#!/bin/sh
# lock.sh [--upgrade]: pins every package that lib/pyproject.toml asks for, and uv itself: versions and hashes, no address.
set -eu
cd "$(dirname "$0")/.."

compile() {
    # From 3.11.0 on, not from the version that happens to run: some packages are needed up to 3.11.2 only.
    ../.venv/bin/uv pip compile -q --universal --python-version 3.11 --fork-strategy fewest --generate-hashes \
        --no-header --no-annotate --no-emit-index-url "$@"
}

compile --extra dev pyproject.toml -o requirements.lock "$@"
echo 'uv>=0.9,<1' | compile - -o setup/uv.txt "$@"
