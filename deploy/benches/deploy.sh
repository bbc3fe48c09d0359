#!/usr/bin/env bash
# Times deployments to a host that is this machine, over a real SSH connection: a bare host, a one-line change in a layer of 170 MB,
# no change at all, and a rollback on four hosts. The one-line change goes through the pipeline that people have, too: docker build,
# push to a registry, and over SSH docker-compose pull and up.
#
#   deploy/benches/deploy.sh [DIRECTORY with rdeploy] [ROUNDS]
set -euo pipefail

bin=$(realpath "${1:-target/bin}")
rounds=${2:-5}
here=$(dirname "$(realpath "$0")")
work=$(mktemp -d)
. "$here/../../engine/benches/docker.sh"
port=$((20000 + RANDOM % 10000))
web=$((port + 1))

finish() {
	# A connection that stays would be there for another minute.
	for socket in "$work"/run/rdeploy-kept-*/*; do
		[ ! -S "$socket" ] || ssh -S "$socket" -O exit none 2>/dev/null || true
	done
	# Every host is an engine of its own below the work directory.
	for root in "$work"/host*; do
		[ -d "$root" ] || continue
		"$bin/rengine" --root "$root" ps -aq | xargs -r "$bin/rengine" --root "$root" rm -f >/dev/null
		"$bin/rengine" --root "$root" system down >/dev/null 2>&1 || true
	done
	"$bin/rengine" --root "$work/here" system down >/dev/null 2>&1 || true
	stop_docker
	stop_registry
	[ ! -f "$work/sshd.pid" ] || kill "$(cat "$work/sshd.pid")"
	rm -rf "$work"
}
trap finish EXIT

# Its root has a home without start files, which every command would run: those of whoever measures are not a server's.
start_sshd() {
	ssh-keygen -q -t ed25519 -N '' -f "$work/host_key"
	ssh-keygen -q -t ed25519 -N '' -f "$work/id"
	mkdir -p /run/sshd "$work/home" "$work/run"
	cat >"$work/sshd_config" <<-EOF
		Port $port
		ListenAddress 127.0.0.1
		HostKey $work/host_key
		PidFile $work/sshd.pid
		AuthorizedKeysFile $work/id.pub
		StrictModes no
		PermitRootLogin prohibit-password
		UsePAM no
		SetEnv HOME=$work/home
	EOF
	"$(command -v sshd || echo /usr/sbin/sshd)" -f "$work/sshd_config"
	fingerprint=$(ssh-keygen -lf "$work/host_key.pub" | cut -d' ' -f2)
}

make_project() {
	mkdir -p "$work/p/app"
	cp /bin/busybox "$work/p"
	make_files "$work/p/app" 170000000
	echo page0 >"$work/p/app/page"
	cat >"$work/p/Dockerfile" <<-'EOF'
		FROM scratch
		COPY busybox /bin/busybox
		RUN ["/bin/busybox", "--install", "-s", "/bin"]
		COPY app /app
		CMD ["httpd", "-f", "-p", "80", "-h", "/app"]
	EOF
	cat >"$work/p/compose.yaml" <<-EOF
		services:
		  web: {build: ., ports: ['127.0.0.1:\${WEB:-$web}:80'], stop_grace_period: 0s}
	EOF
}

# rdeploy for one host, or for the hosts given first.
deploy() {
	local hosts=$1
	shift
	(cd "$work/p" && WEB=$web XDG_RUNTIME_DIR=$work/run "$bin/rdeploy" --root "$work/here" --json $hosts --fingerprint "$fingerprint" -i "$work/id" "$@" 2>"$work/log") || {
		cat "$work/log" >&2
		exit 1
	}
}

field() { python3 -c 'import json,sys; print(json.loads(sys.argv[1])["hosts"][0][sys.argv[2]])' "$1" "$2"; }
now() { date +%s%N; }
since() { echo $((($(now) - $1) / 1000000)); }
median() { sort -n | awk '{a[NR]=$1} END {print a[int((NR+1)/2)]}'; }

# pipeline PAGE: what people have
pipeline() {
	echo "$1" >"$work/p/app/page"
	(cd "$work/p" && docker build -q -t "$hub/web:latest" . && docker push -q "$hub/web:latest") >/dev/null 2>"$work/log" || { cat "$work/log" >&2; exit 1; }
	ssh -F none -p "$port" -i "$work/id" -o UserKnownHostsFile="$work/known" root@127.0.0.1 \
		"export DOCKER_HOST=$DOCKER_HOST; '$compose' -f '$work/peer.yaml' pull -q && '$compose' -f '$work/peer.yaml' up -d" >/dev/null 2>"$work/log" ||
		{ cat "$work/log" >&2; exit 1; }
}

start_sshd
make_project
one="--host root@127.0.0.1:$port --remote-root $work/host1"

began=$(now)
deploy "$one" status >/dev/null
echo "bare host, until the agent answers: $(since "$began") ms"
began=$(now)
deploy "$one" up >/dev/null
echo "first release, 170 MB: $(since "$began") ms"

for round in $(seq "$rounds"); do
	echo "page$round" >"$work/p/app/page"
	began=$(now)
	(until [ "$(curl -fs "http://127.0.0.1:$web/page" 2>/dev/null)" = "page$round" ]; do sleep 0.01; done; since "$began" >>"$work/answered") &
	report=$(deploy "$one" up --drain 0s)
	wait $!
	since "$began" >>"$work/changed"
	field "$report" bytes_sent >>"$work/bytes"
done
echo "one line changed, until the new version answers: $(median <"$work/answered") ms, until the command ends: $(median <"$work/changed") ms, sent: $(median <"$work/bytes") bytes"

for round in $(seq "$rounds"); do
	began=$(now)
	report=$(deploy "$one" up)
	since "$began" >>"$work/unchanged"
	field "$report" bytes_sent >>"$work/nothing"
done
echo "no change: $(median <"$work/unchanged") ms, sent: $(median <"$work/nothing") bytes"

for round in $(seq 0 "$rounds"); do
	began=$(now)
	deploy "$one" up --ssh-persist 60s >/dev/null
	# The first one makes the connection that stays.
	[ "$round" = 0 ] || since "$began" >>"$work/again"
done
echo "no change, over a connection that stayed: $(median <"$work/again") ms; wanted 300"

for round in $(seq "$rounds"); do
	began=$(now)
	ssh -F none -p "$port" -i "$work/id" -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR root@127.0.0.1 true
	since "$began" >>"$work/ssh"
done
echo "ssh alone, with a login: $(median <"$work/ssh") ms"
deploy "$one" uninstall --volumes >/dev/null

# Without networks of its own, which keeps it from the machine's firewall: its container has the host's network.
docker_wrapper=()
start_docker --bridge none --iptables=false --ip6tables=false --ip-forward=false --ip-masq=false
hub=127.0.0.1:$((port + 2))
start_registry "$hub"
compose=$(compose_program)
ssh-keyscan -p "$port" 127.0.0.1 >"$work/known" 2>/dev/null
echo "services: {web: {image: '$hub/web:latest', network_mode: host, command: [httpd, -f, -p, '127.0.0.1:$web', -h, /app], stop_grace_period: 0s}}" >"$work/peer.yaml"
pipeline peer0
for round in $(seq "$rounds"); do
	began=$(now)
	pipeline "peer$round"
	until [ "$(curl -fs "http://127.0.0.1:$web/page" 2>/dev/null)" = "peer$round" ]; do sleep 0.01; done
	since "$began" >>"$work/peer"
done
ours=$(median <"$work/answered")
theirs=$(median <"$work/peer")
echo "the same by docker build, push, pull and docker-compose up: $theirs ms, $(awk -v a="$theirs" -v b="$ours" 'BEGIN {printf "%.1f", a / b}') times ours; wanted 8"

four=
sed -i 's/.*web:.*/  web: {build: ., ports: ["80"], stop_grace_period: 0s}/' "$work/p/compose.yaml"
for number in 2 3 4 5; do four+=" --host local:$work/host$number"; done
deploy "$four" up >/dev/null
echo pageX >"$work/p/app/page"
deploy "$four" up --drain 0s >/dev/null
began=$(now)
deploy "$four" rollback --drain 0s >/dev/null
echo "rollback on four hosts (on this machine): $(since "$began") ms"
