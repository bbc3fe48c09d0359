#!/usr/bin/env bash
# Lets containers come and go for a time, eight at once, and fails when anything of them stays.
#
#   soak.sh DIRECTORY [MINUTES]     DIRECTORY holds rengine (target/bin)
#
# It runs in a network namespace of its own, so every link and every rule there is this engine's. What is compared, before
# and after: files, processes, mounts, links, rules, control groups; and of a monitor that lives all the time its
# descriptors and its memory.
set -euo pipefail

if [ -z "${SOAK_INSIDE:-}" ]; then
	SOAK_INSIDE=1 exec unshare --net "$0" "$@"
fi
bin=$(realpath "${1:?"usage: soak.sh DIRECTORY [MINUTES]"}")
minutes=${2:-120}
workers=8

work=$(mktemp -d /var/tmp/soak-XXXXXX)
export RENGINE_ROOT=$work/root
rengine=$bin/rengine
tag=
pids=()

finish() {
	trap - EXIT
	[ ${#pids[@]} = 0 ] || kill "${pids[@]}" 2>/dev/null || true
	ids=$("$rengine" ps -aq 2>/dev/null || true)
	[ -z "$ids" ] || "$rengine" rm -f $ids >/dev/null || true
	"$rengine" network prune -f >/dev/null 2>&1 || true
	"$rengine" system down >/dev/null 2>&1 || true
	rm -rf "$work"
}
trap finish EXIT
trap 'exit 130' INT TERM

box() {
	mkdir -p "$work/box/bin" "$work/box/tmp" "$work/box/etc" "$work/box/proc" "$work/box/sys" "$work/box/dev"
	cp /bin/busybox "$work/box/bin/busybox"
	for applet in sh true sleep cat echo; do ln -s busybox "$work/box/bin/$applet"; done
	tar -C "$work/box" -cf "$work/box.tar" .
	"$rengine" import "$work/box.tar" box >/dev/null
}

# A life of a container, of four kinds.
life() {
	local name=$1 kind=$2 flags=(--network none)
	case $kind in
	1) flags=(--network lan -p 80) ;;
	2) flags=(-v "data-$name:/data" -m 64m --pids-limit 32) ;;
	3) flags=(--network lan --init --health-cmd true --health-interval 1s --restart on-failure:2) ;;
	esac
	"$rengine" create --name "$name" "${flags[@]}" box sh -c 'echo up; sleep 1000' >/dev/null
	"$rengine" start "$name" >/dev/null
	"$rengine" exec "$name" true
	"$rengine" exec lasting true
	[ "$kind" != 3 ] || "$rengine" network disconnect lan "$name"
	"$rengine" logs "$name" >/dev/null
	"$rengine" stop -t 0 "$name" >/dev/null
	"$rengine" rm -v "$name" >/dev/null
	[ "$kind" != 2 ] || "$rengine" volume rm "data-$name" >/dev/null
	"$rengine" run --rm box true
}

worker() {
	local number=$1 until=$2 turn=0
	while [ "$(date +%s)" -lt "$until" ]; do
		life "soak-$number-$turn" $(((number + turn) % 4)) || return 1
		turn=$((turn + 1))
	done
	echo "$turn" >"$work/turns-$number"
}

# What there is of this engine, one line each. The journal and what the lasting container writes may grow.
files() { (cd "$1" 2>/dev/null && find . -mindepth 1 -not -path './events/*' | LC_ALL=C sort) || true; }
processes() {
	local file
	for file in /proc/[0-9]*/cmdline; do
		{ tr '\0' ' ' <"$file"; } 2>/dev/null | grep -aF "$RENGINE_ROOT" | grep -vaF "soak.sh" || true
	done | sed 's/ [0-9a-f]\{64\}.*//' | LC_ALL=C sort
}
mounts() { grep -cF "$work" /proc/self/mountinfo || true; }
links() { ip -br link | awk '{ print $1 }' | sed 's/@.*//; s/^veth.*/veth/' | LC_ALL=C sort; }
rules() { nft list ruleset | LC_ALL=C sort; }
groups() { find /sys/fs/cgroup -path "*/$tag/*" -type d 2>/dev/null | LC_ALL=C sort; }

snapshot() { # snapshot NAME
	mkdir -p "$work/$1"
	files "$RENGINE_ROOT" >"$work/$1/files"
	files "/run/$tag" >"$work/$1/run-files"
	processes >"$work/$1/processes"
	mounts >"$work/$1/mounts"
	links >"$work/$1/links"
	rules >"$work/$1/rules"
	groups >"$work/$1/groups"
	ls "/proc/$monitor/fd" | wc -l >"$work/$1/descriptors"
}

private_memory() { awk '/^Private_/ { sum += $2 } END { print sum }' "/proc/$monitor/smaps_rollup"; }

ip link set lo up
box
"$rengine" network create lan >/dev/null
"$rengine" run -d --name lasting --network lan box sleep 100000 >/dev/null
tag=$(nft list tables | awk '/rengine/ { print $3; exit }')
pid=$("$rengine" inspect --format '{{.State.Pid}}' lasting)
monitor=$(awk '/^PPid:/ { print $2 }' "/proc/$pid/status")
# The first lives make what every engine keeps.
for kind in 0 1 2 3; do life "first-$kind" "$kind"; done
snapshot before
memory_before=$(private_memory)

echo "$minutes min, $workers at once, load $(cut -d' ' -f1 /proc/loadavg), $(uname -r)"
until=$(($(date +%s) + minutes * 60))
for number in $(seq "$workers"); do
	worker "$number" "$until" &
	pids+=($!)
done
failed=0
for pid in "${pids[@]}"; do wait "$pid" || failed=1; done
pids=()
[ "$failed" = 0 ] || { echo "a life went wrong" >&2; exit 1; }
lives=$(cat "$work"/turns-* | awk '{ sum += $1 } END { print sum }')

# Links vanish with their network namespaces, which the kernel clears away by and by.
for _ in $(seq 100); do
	snapshot after
	diff -r "$work/before" "$work/after" >"$work/differences" && break
	sleep 0.1
done
memory_after=$(private_memory)
echo "$lives lives; private memory of the lasting monitor $memory_before kB before, $memory_after kB after"
if [ -s "$work/differences" ]; then
	echo "what stayed, or is missed:" >&2
	head -n 60 "$work/differences" >&2
	failed=1
fi
if [ "$memory_after" -gt $((memory_before + 512)) ]; then
	echo "the monitor has grown" >&2
	failed=1
fi
checked=$("$rengine" system check)
echo "$checked"
exit "$failed"
