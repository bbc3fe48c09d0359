#!/usr/bin/env bash
# Installs the one executable under its three names where the steps that follow find it.
#
#   BINARY   an executable that was built before; empty to build SOURCE, which needs a Rust toolchain
set -euo pipefail

fail() {
	echo "::error title=rengine::$1"
	exit 1
}

build() {
	command -v cargo >/dev/null || fail "no Rust toolchain to build with: install one in an earlier step, or give 'binary'"
	(cd "$SOURCE" && cargo build --locked --release -p deploy >&2)
	BINARY=$SOURCE/target/$(rustc -vV | sed -n 's/^host: //p')/release/rdeploy
}

[ -n "${BINARY:-}" ] || build
[ -f "$BINARY" ] || fail "binary: there is no file $BINARY"

directory=${RUNNER_TEMP:-$(mktemp -d)}/rengine/bin
mkdir -p "$directory"
install -m 755 "$BINARY" "$directory/rengine"
ln -sf rengine "$directory/rcompose"
ln -sf rengine "$directory/rdeploy"
version=$("$directory/rdeploy" version) || fail "binary: $BINARY is not an executable of rengine for this machine"

echo "$directory" >>"$GITHUB_PATH"
{
	echo "version=${version##* }"
	echo "path=$directory"
} >>"$GITHUB_OUTPUT"
echo "installed ${version##* } in $directory"
