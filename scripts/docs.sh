#!/usr/bin/env bash
# The pages of docs/ as a site, with a search that needs no network.
#
#   scripts/docs.sh          build it: build/site
#   scripts/docs.sh serve    build it and show it at http://127.0.0.1:8000
set -euo pipefail
[[ "$*" =~ ^(serve)?$ ]] || { echo "usage: scripts/docs.sh [serve]" >&2; exit 2; }
cd "$(dirname "$0")/.."
scripts/setup.sh docs
. .venv/bin/activate
python scripts/site_pages.py build/docs
(cd build && zensical build --strict --clean)
if [[ "$*" == serve ]]; then
    echo "Open http://127.0.0.1:8000 (Ctrl-C ends it)"
    exec python -m http.server --bind 127.0.0.1 --directory build/site 8000 2>/dev/null
fi
