#!/usr/bin/env bash
# Installs the one executable under its three names where the steps that follow find it: one that was built before, a
# released one, or one built here.
#
#   BINARY    an executable that was built before
#   VERSION   a released version, v1.2.3; empty for the one that REF, the tag this action is used by, belongs to
#   SHA256    the digest that the released executable must have; empty to go by the release's own list
#   RELEASES  where releases are; empty for those of REPOSITORY at SERVER
#   SOURCE    what is built when none of them says anything, which needs a Rust toolchain
set -euo pipefail

fail() {
	echo "::error title=rengine::$1"
	exit 1
}

build() {
	command -v cargo >/dev/null || fail "no Rust toolchain to build with: install one in an earlier step, or give 'version' or 'binary'"
	(cd "$SOURCE" && cargo build --locked --release -p deploy >&2)
	BINARY=$SOURCE/target/$(rustc -vV | sed -n 's/^host: //p')/release/rdeploy
}

# A tag of a version, v1.2.3 or the floating v1, is a release; a branch or a commit is not.
version_of_ref() {
	case ${REF:-} in
	v[0-9]*) sed -n 's/^version = "\(.*\)"$/v\1/p' "$SOURCE/Cargo.toml" | head -n 1 ;;
	esac
}

architecture() {
	case ${RUNNER_ARCH:-} in
	X64) echo x86_64 ;;
	ARM64) echo aarch64 ;;
	*) uname -m ;;
	esac
}

fetch() {
	# No other protocol than the one that is asked for, whatever it is redirected to.
	curl --fail --silent --show-error --location --proto "=${RELEASES%%:*}" --retry 10 --retry-connrefused --max-time 300 \
		--output "$2" "$1" || fail "version: $1 cannot be fetched"
}

# download DIRECTORY: the released executable, whole and checked, or nothing
download() {
	local name part wanted found
	name=rdeploy-$(architecture)-linux
	part=$1.part.$$
	mkdir -p "$part"
	fetch "$RELEASES/$VERSION/$name" "$part/rdeploy"
	if [ -n "${SHA256:-}" ]; then
		wanted=${SHA256#sha256:}
	else
		fetch "$RELEASES/$VERSION/$name.sha256" "$part/sha256"
		wanted=$(cut -d ' ' -f 1 "$part/sha256")
	fi
	found=$(sha256sum "$part/rdeploy" | cut -d ' ' -f 1)
	if [ "$found" != "$wanted" ]; then
		rm -rf "$part"
		fail "version: $name of $VERSION has the digest $found, and should have $wanted"
	fi
	chmod 755 "$part/rdeploy"
	# Another job of this runner may have been quicker.
	mv -T "$part" "$1" 2>/dev/null || rm -rf "$part"
}

released() {
	local directory
	directory=${RUNNER_TOOL_CACHE:-${RUNNER_TEMP:-/tmp}}/rdeploy/${VERSION#v}/$(architecture)
	mkdir -p "$(dirname "$directory")"
	if [ -x "$directory/rdeploy" ] && [ -n "${SHA256:-}" ] &&
		! echo "${SHA256#sha256:}  $directory/rdeploy" | sha256sum --check --status; then
		rm -rf "$directory"
	fi
	[ -x "$directory/rdeploy" ] || download "$directory"
	BINARY=$directory/rdeploy
}

# Inside a composite action some runners say nothing of it: then the place that they have put it at does,
# …/_actions/OWNER/REPOSITORY/REF/action.
name_from_path() {
	local rest
	case ${GITHUB_ACTION_PATH:-} in
	*/_actions/*/*/*/action)
		rest=${GITHUB_ACTION_PATH##*/_actions/}
		rest=${rest%/action}
		REF=${REF:-${rest#*/*/}}
		REPOSITORY=${REPOSITORY:-${rest%"/${rest#*/*/}"}}
		;;
	esac
}

name_from_path
RELEASES=${RELEASES:-${SERVER:-https://github.com}/${REPOSITORY:-}/releases/download}
VERSION=${VERSION:-$(version_of_ref)}
if [ -z "${BINARY:-}" ]; then
	if [ -n "$VERSION" ]; then released; else build; fi
fi
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
