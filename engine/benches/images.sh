#!/usr/bin/env bash
# Times builds, pulls and pushes against docker, and unpacking against gzip and tar, on one machine in one run.
#
#   images.sh DIRECTORY [ROUNDS]     DIRECTORY holds rengine (target/bin)
set -euo pipefail

bin=$(realpath "${1:?"usage: images.sh DIRECTORY [ROUNDS]"}")
rounds=${2:-5}
here=$(dirname "$(realpath "$0")")
work=$(mktemp -d /var/tmp/images-XXXXXX)
export RENGINE_ROOT=$work/rengine DOCKER_BUILDKIT=0
rengine=$bin/rengine
hub=127.0.0.1:$((20000 + RANDOM % 10000))
. "$here/rounds.sh"
. "$here/docker.sh"

finish() {
	trap - EXIT
	stop_rengine
	stop_docker
	stop_registry
	rm -rf "$work"
}
trap finish EXIT
trap 'exit 130' INT TERM

# The registry is at the machine's loopback, so docker has no network of its own: its pulls and pushes have to reach that.
docker_wrapper=()
make_box
make_files "$work/context/app" 80000000
printf 'FROM box\nCOPY app /app\nCMD ["true"]\n' >"$work/context/Dockerfile"
start_docker --bridge none --iptables=false --ip6tables=false --ip-forward=false --ip-masq=false
start_registry "$hub"
"$rengine" import "$work/box.tar" box >/dev/null
docker import "$work/box.tar" box >/dev/null

echo "$rounds rounds, $(nproc) processors, load $(cut -d' ' -f1 /proc/loadavg), $(uname -r), docker $(docker version --format '{{.Server.Version}}')"

# --- a context of 7,578 files, 80 MB ---
"$rengine" build -q -t app "$work/context" >/dev/null
docker build -q -t app "$work/context" >/dev/null 2>&1
for round in $(seq "$rounds"); do
	measure rengine-noop "$rengine" build -q -t app "$work/context"
	measure docker-noop docker build -q -t app "$work/context"
done
for round in $(seq "$rounds"); do
	echo "# $round" >>"$work/context/app/7/7.py"
	measure rengine-edit "$rengine" build -q -t app "$work/context"
	measure docker-edit docker build -q -t app "$work/context"
done
row "no-op build, 7,578 files, 80 MB" rengine-noop docker-noop 8
limit "no-op build, 7,578 files, 80 MB" ms rengine-noop 1000 50
row "one file edited" rengine-edit docker-edit 1
limit "one file edited" ms rengine-edit 1000 200

# --- steps and stages ---
mkdir "$work/steps" "$work/stages" "$work/stage"
{ echo "FROM box"; for step in $(seq 20); do echo "RUN true $step"; done; } >"$work/steps/Dockerfile"
{
	for stage in $(seq 20); do printf 'FROM box AS s%d\nRUN dd if=/dev/zero bs=1M count=150 | sha256sum >/sum%d\n' "$stage" "$stage"; done
	echo "FROM box"
	for stage in $(seq 20); do echo "COPY --from=s$stage /sum$stage /"; done
} >"$work/stages/Dockerfile"
printf 'FROM box\nRUN dd if=/dev/zero bs=1M count=150 | sha256sum >/sum\n' >"$work/stage/Dockerfile"
for round in $(seq "$rounds"); do
	measure rengine-steps "$rengine" build -q --no-cache "$work/steps"
	measure docker-steps docker build -q --no-cache "$work/steps"
	measure rengine-stages "$rengine" build -q --no-cache "$work/stages"
	measure rengine-stage "$rengine" build -q --no-cache "$work/stage"
done
row "20 RUN steps" rengine-steps docker-steps 1
limit "one RUN step" ms rengine-steps 20000 20
# The same work one after the other, shared among the processors.
keep ideal-stages $(($(figure rengine-stage) * 20 / $(nproc)))
row "20 stages, against 20 times one / processors" rengine-stages ideal-stages 0.8

# --- a layer of 170 MB, from and to a registry on loopback ---
mkdir "$work/big" "$work/floor"
make_files "$work/big/app" 170000000
printf 'FROM scratch\nCOPY app /app\nCMD ["/bin/true"]\n' >"$work/big/Dockerfile"
"$rengine" build -q -t "$hub/big:ours" "$work/big" >/dev/null
docker build -q -t "$hub/big:theirs" "$work/big" >/dev/null 2>&1
for round in $(seq "$rounds"); do
	# Nothing of the round before is there, so everything is packed and sent.
	rm -rf "$work/registry"
	measure rengine-push "$rengine" push "$hub/big:ours"
	rm -rf "$work/registry"
	measure docker-push docker push "$hub/big:theirs"
done
"$rengine" push "$hub/big:ours" >/dev/null
layer=$(curl -fs -H 'Accept: application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json' \
	"http://$hub/v2/big/manifests/ours" | jq -r '.layers[0].digest')
curl -fs "http://$hub/v2/big/blobs/$layer" >"$work/layer.tar.gz"
"$rengine" rmi -f "$hub/big:ours" >/dev/null
"$rengine" builder prune -af >/dev/null
docker rmi -f "$hub/big:theirs" >/dev/null 2>&1
for round in $(seq "$rounds"); do
	measure rengine-pull "$rengine" pull "$hub/big:ours"
	measure docker-pull docker pull "$hub/big:ours"
	measure floor sh -c "gzip -dc '$work/layer.tar.gz' | tar -x -C '$work/floor'"
	"$rengine" rmi -f "$hub/big:ours" >/dev/null
	docker rmi -f "$hub/big:ours" >/dev/null 2>&1
	rm -rf "$work/floor"/*
done
row "push of a layer of 170 MB" rengine-push docker-push 4
row "pull of it, unpacked" rengine-pull docker-pull 3
row "pull of it, against gzip -dc | tar x" rengine-pull floor 0.77

# --- memory ---
peak rengine-pull-peak "$rengine" pull "$hub/big:ours"
rm -rf "$work/registry"
peak rengine-push-peak "$rengine" push "$hub/big:ours"
peak rengine-build-peak "$rengine" build -q --no-cache -t big "$work/big"
limit "memory of pull" MB rengine-pull-peak 1024 64
limit "memory of push" MB rengine-push-peak 1024 64
limit "memory of build" MB rengine-build-peak 1024 64
