#!/usr/bin/env bash
# Times rcompose against the real docker-compose on docker, on one machine in one run.
#
#   compose.sh DIRECTORY [ROUNDS]     DIRECTORY holds rengine and rcompose (target/bin)
set -euo pipefail

bin=$(realpath "${1:?"usage: compose.sh DIRECTORY [ROUNDS]"}")
rounds=${2:-3}
here=$(dirname "$(realpath "$0")")
work=$(mktemp -d /var/tmp/compose-XXXXXX)
export RENGINE_ROOT=$work/rengine
rengine=$bin/rengine
rcompose=$bin/rcompose
port=$((20000 + RANDOM % 9000))
. "$here/../../engine/benches/rounds.sh"
. "$here/../../engine/benches/docker.sh"

finish() {
	trap - EXIT
	[ -z "${watcher:-}" ] || kill "$watcher" 2>/dev/null || true
	[ -z "${load:-}" ] || kill "$load" 2>/dev/null || true
	stop_rengine
	stop_docker
	rm -rf "$work"
}
trap finish EXIT
trap 'exit 130' INT TERM

# stack NUMBER: so many services with a network, a name and a port each
stack() {
	echo "name: stack$1"
	echo "services:"
	for number in $(seq "$1"); do
		printf '  s%d: {image: box, command: [sleep, "1000"], init: true, stop_grace_period: 0s, ports: ["127.0.0.1:%d:80"]}\n' "$number" $((port + number))
	done
}

# chain NUMBER: each service waits until the one before it is healthy
chain() {
	echo "name: chain"
	echo "services:"
	for number in $(seq "$1"); do
		printf '  s%d:\n    image: box\n    command: [sleep, "1000"]\n    init: true\n    stop_grace_period: 0s\n' "$number"
		printf '    healthcheck: {test: [CMD, "true"], interval: 1s}\n'
		[ "$number" = 1 ] || printf '    depends_on: {s%d: {condition: service_healthy}}\n' $((number - 1))
	done
}

# layers: twelve layers of five services, each of which depends on all of the layer before
layers() {
	echo "services:"
	for layer in $(seq 12); do
		for number in $(seq 5); do
			printf '  l%dn%d:\n    image: box\n' "$layer" "$number"
			[ "$layer" = 1 ] || printf '    depends_on: [%s]\n' "$(seq -s, -f "l$((layer - 1))n%g" 5)"
		done
	done
}

make_box
echo one >"$work/box/page"
tar -C "$work/box" -cf "$work/box.tar" .
start_docker
"$rengine" import "$work/box.tar" box >/dev/null
docker import "$work/box.tar" box >/dev/null
compose=$(compose_program)
echo "$rounds rounds, $(nproc) processors, load $(cut -d' ' -f1 /proc/loadavg), $(uname -r)"
echo "docker $(docker version --format '{{.Server.Version}}'), docker-compose $compose_version"

# --- up and down ---
for number in 1 10 50; do
	file=$work/stack$number.yaml
	stack "$number" >"$file"
	for _ in $(seq "$rounds"); do
		measure rcompose-up$number "$rcompose" -f "$file" up -d
		measure rcompose-noop$number "$rcompose" -f "$file" up -d
		measure rcompose-down$number "$rcompose" -f "$file" down
		measure compose-up$number "$compose" -f "$file" up -d
		measure compose-noop$number "$compose" -f "$file" up -d
		measure compose-down$number "$compose" -f "$file" down
	done
	row "up -d of $number" rcompose-up$number compose-up$number 10
done
row "down of 50" rcompose-down50 compose-down50 8
row "up -d of 50 again" rcompose-noop50 compose-noop50 1
limit "up -d of 50 again" ms rcompose-noop50 1000 20
# What a linker or a copy has just written is in memory in large pieces, each of which counts whole.
dd if="$rcompose" iflag=nocache count=0 status=none
peak rcompose-peak "$rcompose" -f "$work/stack50.yaml" up -d
limit "memory of the client during up of 50" MB rcompose-peak 1024 20
"$rcompose" -f "$work/stack50.yaml" down >/dev/null 2>&1

chain 10 >"$work/chain.yaml"
for _ in $(seq "$rounds"); do
	measure rcompose-chain "$rcompose" -f "$work/chain.yaml" up -d
	"$rcompose" -f "$work/chain.yaml" down >/dev/null 2>&1
done
measure compose-chain "$compose" -f "$work/chain.yaml" up -d
"$compose" -f "$work/chain.yaml" down >/dev/null 2>&1
row "chain of 10 healthy services" rcompose-chain compose-chain 1
limit "chain of 10 healthy services" ms rcompose-chain 1000 1000

# --- config ---
chain 1000 >"$work/long.yaml"
layers >"$work/layers.yaml"
for _ in $(seq "$rounds") 1 2 3 4 5; do
	measure config-one "$rcompose" -f "$work/stack1.yaml" config
	measure config-long "$rcompose" -f "$work/long.yaml" config
	measure config-layers "$rcompose" -f "$work/layers.yaml" config
done
limit "config of 1 service" ms config-one 1000 5
limit "config of 1,000 in a chain" ms config-long 1000 30
limit "config of 12 dense layers" ms config-layers 1000 10

# --- watch: from the end of a write on the host until the file in the container is the new one ---
mkdir "$work/src"
echo start >"$work/src/page"
cat >"$work/watch.yaml" <<-EOF
	name: watching
	services:
	  web:
	    image: box
	    command: [sleep, "1000"]
	    init: true
	    stop_grace_period: 0s
	    develop: {watch: [{path: ./src, target: /src, action: sync, initial_sync: true}]}
EOF
"$rcompose" -f "$work/watch.yaml" up -d >/dev/null 2>&1
"$rcompose" -f "$work/watch.yaml" watch --no-up >"$work/watch.log" 2>&1 &
watcher=$!
inside=/proc/$("$rengine" inspect -f '{{.State.Pid}}' watching-web-1)/root/src/page
until [ "$(cat "$inside" 2>/dev/null)" = start ]; do sleep 0.05; done
for number in $(seq 100); do
	began=${EPOCHREALTIME/./}
	echo "$number" >"$work/src/page"
	# Read by the shell itself, without a pause.
	until read -r now <"$inside" && [ "$now" = "$number" ]; do :; done 2>/dev/null
	keep watch $((${EPOCHREALTIME/./} - began))
done
kill "$watcher"
wait "$watcher" 2>/dev/null || true
watcher=
"$rcompose" -f "$work/watch.yaml" down >/dev/null 2>&1
limit "edit to visible under watch, p50" ms watch 1000 30 0.5
limit "edit to visible under watch, p99" ms watch 1000 100 0.99

# --- updates while somebody asks 200 times a second ---
# updates ORDER NUMBER [keep]: how many requests failed while the service was changed so many times; with `keep` on
# connections that are kept, by a server that keeps them
updates() {
	local serves='command: [httpd, -f, -p, "80", -h, /]'
	if [ "${3:-}" = keep ]; then
		serves='command: [/usr/bin/python3, /keep.py]
		    healthcheck: {test: [CMD, sh, -c, test -e /listening], interval: 1s}
		    volumes: ["/usr:/usr:ro", "/lib:/lib:ro", "/lib64:/lib64:ro", "'$here'/keep.py:/keep.py:ro"]'
	fi
	cat >"$work/update.yaml" <<-EOF
		name: updating
		services:
		  web:
		    image: box
		    environment: {RELEASE: "\${RELEASE}"}
		    ${serves//$'\t'/}
		    init: true
		    ports: ["127.0.0.1:$port:80"]
		    deploy: {update_config: {order: $1}}
	EOF
	RELEASE=0 "$rcompose" -f "$work/update.yaml" up -d >/dev/null 2>&1
	until curl -fs "http://127.0.0.1:$port/page" >/dev/null; do sleep 0.05; done
	python3 "$here/load.py" "$port" ${3:+"$3"} >"$work/load" 2>"$work/failures" &
	load=$!
	for release in $(seq "$2"); do RELEASE=$release "$rcompose" -f "$work/update.yaml" up -d >/dev/null 2>&1; done
	kill -INT "$load"
	wait "$load" || true
	load=
	"$rcompose" -f "$work/update.yaml" down >/dev/null 2>&1
	read -r asked failed refused <"$work/load"
	echo "$2 changes, $1${3:+, connections kept}: $asked requests"
	keep "failed-$1${3:+-$3}" "$failed"
	keep "refused-$1${3:+-$3}" "$refused"
}
updates start-first 100
limit "100 changes, start-first" "failed requests" failed-start-first 1 0
updates start-first 100 keep
limit "100 changes, start-first, kept" "failed requests" failed-start-first-keep 1 0
updates stop-first 20
limit "20 changes, stop-first" "refused" refused-stop-first 1 0
