#!/usr/bin/env bash
# Puts what some tests take from npm into DIR/node_modules: ws, a WebSocket client of another make, and axe-core,
# which looks for what keeps people from using the page.
#
# Usage: install_node_parts.sh DIR
# Says "ready" and does nothing else if DIR is complete and was made by this version of the script.
# Exit codes: 0 ready, 1 npm could not bring it, 2 usage.
set -euo pipefail

readonly PACKAGES=(ws@8.23.0 axe-core@4.14.1)

[ $# -eq 1 ] || { echo "usage: install_node_parts.sh DIR" >&2; exit 2; }
mkdir -p "$1"
target=$(cd "$1" && pwd)
stamp=${PACKAGES[*]}
if [ "$(cat "$target/stamp" 2>/dev/null || true)" = "$stamp" ]; then
    echo "node parts: ready in $target"
    exit 0
fi
rm -rf "${target:?}"/{stamp,node_modules,package.json,package-lock.json}
# Its own package.json, so that npm does not look for one further up.
echo '{"private": true}' >"$target/package.json"
npm install --prefix "$target" --no-audit --no-fund --no-update-notifier --no-package-lock --ignore-scripts \
    --loglevel=error "${PACKAGES[@]}" || { echo "node parts: npm could not bring ${PACKAGES[*]}" >&2; exit 1; }
echo "$stamp" >"$target/stamp"
echo "node parts: ready in $target"
