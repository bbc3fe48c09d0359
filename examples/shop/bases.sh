#!/usr/bin/env bash
# Makes the base image of the shop from Debian's packages and prints the path of its tar.
#
#   bases.sh DIRECTORY      keeps the tar in DIRECTORY and makes it only when the list of packages has changed
#
# This is the only step that needs a network. The Dockerfiles here need none: what they run is in the base.
set -euo pipefail

suite=bookworm
packages=(
	python3 python3-psycopg2 python3-redis
	postgresql redis-server nginx-light
)

directory=$(realpath -m "${1:?"usage: bases.sh DIRECTORY"}")
# Not where somebody may take the ground away meanwhile.
cd /
key=$(printf '%s\n' "$suite" "${packages[@]}" | sha256sum | cut -c1-12)
tar=$directory/shop-base-$key.tar

if [ ! -e "$tar" ]; then
	mkdir -p "$directory"
	unfinished=$(mktemp "$directory/.shop-base-XXXXXX.tar")
	trap 'rm -f "$unfinished"' EXIT
	include=$(IFS=,; echo "${packages[*]}")
	# No database of its own: the container makes one in its volume.
	mmdebstrap --quiet --variant=minbase --include="$include" \
		--dpkgopt=force-unsafe-io --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
		--dpkgopt='path-exclude=/usr/share/locale/*' \
		--aptopt='Apt::Install-Recommends "false"' \
		--essential-hook='mkdir -p "$1/etc/postgresql-common"' \
		--essential-hook='echo "create_main_cluster = false" > "$1/etc/postgresql-common/createcluster.conf"' \
		--customize-hook='rm -rf "$1"/var/lib/apt/lists/* "$1"/var/cache/apt/*.bin' \
		"$suite" "$unfinished" >&2
	mv "$unfinished" "$tar"
	trap - EXIT
fi
echo "$tar"
