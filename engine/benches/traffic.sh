#!/usr/bin/env bash
# Measures what a running container gets from its engine, against docker and against a network made by hand, on one machine in one run:
# published ports, names, logs; and what many containers cost.
#
#   traffic.sh DIRECTORY [ROUNDS] [CONTAINERS]     DIRECTORY holds rengine (target/bin)
set -euo pipefail

bin=$(realpath "${1:?"usage: traffic.sh DIRECTORY [ROUNDS] [CONTAINERS]"}")
rounds=${2:-5}
containers=${3:-1000}
here=$(dirname "$(realpath "$0")")
work=$(mktemp -d /var/tmp/traffic-XXXXXX)
export RENGINE_ROOT=$work/rengine
rengine=$bin/rengine
port=$((20000 + RANDOM % 9000))
hand=hand$((RANDOM % 10000))
. "$here/rounds.sh"
. "$here/docker.sh"

finish() {
	trap - EXIT
	stop_rengine
	stop_docker
	ip netns delete "$hand" 2>/dev/null || true
	ip link delete "$hand" 2>/dev/null || true
	nft delete table ip "$hand" 2>/dev/null || true
	rm -rf "$work"
}
trap finish EXIT
trap 'exit 130' INT TERM

# What rengine's network comes down to, made by hand for a container without one: a pair of links, and one rule each way.
# The server is in a container on both sides, for what its sandbox costs is not the network's.
network_by_hand() {
	"$rengine" run -d --name hand --network none box httpd -f -p 80 -h / >/dev/null
	ip netns attach "$hand" "$("$rengine" inspect -f '{{.State.Pid}}' hand)"
	ip link add "$hand" type veth peer name eth0 netns "$hand"
	ip address add 10.213.7.1/24 dev "$hand"
	ip link set "$hand" up
	ip -n "$hand" address add 10.213.7.2/24 dev eth0
	ip -n "$hand" link set eth0 up
	ip -n "$hand" route add default via 10.213.7.1
	echo 1 >"/proc/sys/net/ipv4/conf/$hand/route_localnet"
	nft -f - <<-EOF
		table ip $hand {
			chain output { type nat hook output priority -100; ip daddr 127.0.0.1 tcp dport $((port + 1)) dnat to 10.213.7.2:80; }
			chain postrouting { type nat hook postrouting priority 100; ip saddr 127.0.0.1 oifname $hand masquerade; }
		}
	EOF
	until curl -fs "http://127.0.0.1:$((port + 1))/page" >/dev/null; do sleep 0.05; done
}

# connections PORT: requests a second, each on a connection of its own; transfer PORT: MB a second
connections() { wrk -t 1 -c 16 -d 2s -H 'Connection: close' "http://127.0.0.1:$1/page" | awk '/^Requests\/sec/ { print int($2) }'; }
transfer() { curl -fs -o /dev/null -w '%{speed_download}' "http://127.0.0.1:$1/large" | awk '{ print int($1 / 1000000) }'; }

# answers PID: answers a second of the name server at 127.0.0.11 in the container's network
answers() {
	nsenter --net="/proc/$1/ns/net" dnsperf -s 127.0.0.11 -d "$work/queries" -l 2 -c 4 2>/dev/null |
		awk '/Queries per second/ { print int($4) }'
}

make_box
echo page >"$work/box/page"
head -c 300000000 /dev/zero >"$work/box/large"
tar -C "$work/box" -cf "$work/box.tar" .
"$rengine" import "$work/box.tar" box >/dev/null
start_docker
docker import "$work/box.tar" box >/dev/null
echo "$rounds rounds, $(nproc) processors, load $(cut -d' ' -f1 /proc/loadavg), $(uname -r), docker $(docker version --format '{{.Server.Version}}')"

# --- a published port ---
"$rengine" run -d --name web -p "127.0.0.1:$port:80" box httpd -f -p 80 -h / >/dev/null
network_by_hand
until curl -fs "http://127.0.0.1:$port/page" >/dev/null; do sleep 0.05; done
for _ in $(seq "$rounds"); do
	keep rengine-connections "$(connections "$port")"
	keep hand-connections "$(connections $((port + 1)))"
	keep rengine-transfer "$(transfer "$port")"
	keep hand-transfer "$(transfer $((port + 1)))"
done
"$rengine" rm -f web hand >/dev/null
rate "published port, connections, by hand" "a second" rengine-connections hand-connections 0.95
rate "published port, one stream, by hand" "MB/s" rengine-transfer hand-transfer 0.95

# --- names ---
echo 'asked A' >"$work/queries"
for engine in "$rengine" docker; do
	"$engine" network create lan >/dev/null
	"$engine" run -d --name asked --network lan box sleep 1000 >/dev/null
	"$engine" run -d --name asking --network lan box sleep 1000 >/dev/null
done
for _ in $(seq "$rounds"); do
	keep rengine-names "$(answers "$("$rengine" inspect -f '{{.State.Pid}}' asking)")"
	keep docker-names "$(answers "$(docker inspect -f '{{.State.Pid}}' asking)")"
done
rate "names of containers" "answers a second" rengine-names docker-names 1

# --- a monitor that has nothing to do ---
monitor=$(awk '/^PPid:/ { print $2 }' "/proc/$("$rengine" inspect -f '{{.State.Pid}}' asked)/status")
wakeups() { awk '/ctxt_switches/ { sum += $2 } END { print sum }' "/proc/$monitor/status"; }
before=$(wakeups)
sleep 10
keep wakeups $(($(wakeups) - before))
keep memory "$(awk '/^Private_Dirty/ { sum += $2 } END { print sum }' "/proc/$monitor/smaps_rollup")"
limit "a monitor in 10 idle seconds" "wake-ups" wakeups 1 0
limit "its private memory" kB memory 1 500
for engine in "$rengine" docker; do
	"$engine" rm -f asked asking >/dev/null
	"$engine" network rm lan >/dev/null
done

# --- logs: lines of a hundred bytes as fast as they come ---
lines=$(printf 'x%.0s' $(seq 99))
for _ in $(seq "$rounds"); do
	measure rengine-log "$rengine" run --rm -a stdin box sh -c "yes $lines | head -c 200000000"
	measure docker-log docker run --rm -a stdin box sh -c "yes $lines | head -c 200000000"
done
row "200 MB of log" rengine-log docker-log 1

# --- many containers ---
for _ in $(seq 200); do measure empty-start "$rengine" run --rm --network none box true; done
began=${EPOCHREALTIME/./}
seq "$containers" | xargs -P 4 -I {} "$rengine" run -d --network none --name many-{} box sleep 100000 >/dev/null
keep many $((${EPOCHREALTIME/./} - began))
for _ in $(seq 200); do measure full-start "$rengine" run --rm --network none box true; done
limit "$containers containers up" s many 1000000 15
keep slower $(($(figure full-start 0.99) * 100 / $(figure empty-start 0.99)))
limit "start with $containers running, p99, empty host" times slower 100 2
"$rengine" ps -aq | xargs "$rengine" rm -f >/dev/null

obedient='trap "exit 0" TERM; while :; do sleep 1000 & wait; done'
for engine in "$rengine" docker; do
	seq 100 | xargs -P 4 -I {} "$engine" run -d --name obey-{} box sh -c "$obedient" >/dev/null
done
measure rengine-stop sh -c "'$rengine' stop $(seq -s ' ' -f obey-%g 100) && '$rengine' rm $(seq -s ' ' -f obey-%g 100)"
measure docker-stop sh -c "docker stop $(seq -s ' ' -f obey-%g 100) && docker rm $(seq -s ' ' -f obey-%g 100)"
row "stop and rm of 100 that obey" rengine-stop docker-stop 15
