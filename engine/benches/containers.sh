#!/usr/bin/env bash
# Times the lives of containers against docker and runc on one machine in one run, and prints ratios.
#
#   containers.sh DIRECTORY [ROUNDS]     DIRECTORY holds rengine (target/bin)
#
# Docker runs as a daemon of our own with its own socket, data and network namespace, and is ended afterwards.
set -euo pipefail

bin=$(realpath "${1:?"usage: containers.sh DIRECTORY [ROUNDS]"}")
rounds=${2:-21}
here=$(dirname "$(realpath "$0")")
work=$(mktemp -d /var/tmp/containers-XXXXXX)
export RENGINE_ROOT=$work/rengine
rengine=$bin/rengine
. "$here/rounds.sh"
. "$here/docker.sh"

finish() {
	trap - EXIT
	stop_rengine
	stop_docker
	rm -rf "$work"
}
trap finish EXIT
trap 'exit 130' INT TERM

bundle() {
	mkdir -p "$work/bundle"
	cp -a "$work/box" "$work/bundle/rootfs"
	(cd "$work/bundle" && runc spec && jq '.process.terminal = false | .process.args = ["/bin/true"]' config.json >new &&
		mv new config.json)
}

make_box
start_docker
bundle
"$rengine" import "$work/box.tar" box >/dev/null
docker import "$work/box.tar" box >/dev/null

echo "$rounds rounds, $(nproc) processors, load $(cut -d' ' -f1 /proc/loadavg), $(uname -r)"
echo "docker $(docker version --format '{{.Server.Version}}'), $(runc --version | head -n 1)"

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

row "run --rm, bridge, against docker" rengine-bridge docker-bridge 30
row "run --rm, bridge, a published port" rengine-port docker-port 30
row "run --rm, no network, against docker" rengine-none docker-none 30
row "run --rm, no network, against runc" rengine-none runc 3
row "oci run of the same bundle" rengine-oci runc 1
row "exec" rengine-exec docker-exec 15
row "20 run -d at once" rengine-many docker-many 12
row "stop of 20 that obey" rengine-stop docker-stop 1
row "rm of 20" rengine-remove docker-remove 1
