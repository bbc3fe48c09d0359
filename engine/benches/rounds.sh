# Measuring, for the benches that source this. Peers take turns, round after round, so that a noisy neighbour disturbs all of them,
# and medians are compared.
#
# The bench has set `work`, a directory of its own, and `rengine`, and calls `stop_rengine` when it ends.

results=$work/results

# What this engine has on the machine is gone then, except for its files.
stop_rengine() {
	"$rengine" ps -aq | xargs -r "$rengine" rm -f >/dev/null 2>&1 || true
	"$rengine" network prune -f >/dev/null 2>&1 || true
	"$rengine" system down >/dev/null 2>&1 || true
}

# measure NAME COMMAND...: how long one run takes, kept under the name
measure() {
	local name=$1 from to
	shift
	# What the peer has written and the disk has not is the peer's: whoever waits for the disk would wait for that, too.
	sync
	settle
	# Read by the shell itself: another program would be part of what is measured.
	from=${EPOCHREALTIME/./}
	"$@" >/dev/null 2>"$work/last-error" || {
		echo "$name failed: $*" >&2
		cat "$work/last-error" >&2
		exit 1
	}
	to=${EPOCHREALTIME/./}
	keep "$name" $((to - from))
}

# settle: waits, two seconds at most, until the processors had 50 ms of nothing to do. What a daemon does behind the
# end of its command is not to slow down whoever comes next.
settle() {
	local try before after
	[ -p "$work/never" ] || mkfifo "$work/never"
	for ((try = 0; try < 40; try++)); do
		before=$(busy)
		# Nothing ever comes: a pause without a program.
		read -rt 0.05 _ <>"$work/never" || true
		after=$(busy)
		((after - before <= 1)) && return
	done
}

# busy: for how many ticks the processors have worked
busy() {
	local user nice system
	read -r _ user nice system _ </proc/stat
	echo $((user + nice + system))
}

# keep NAME NUMBER: one more figure under the name; times are in microseconds
keep() { echo "$1 $2" >>"$results"; }

# peak NAME COMMAND...: the most memory that one run of the program had at once, in kB
peak() {
	local name=$1
	shift
	/usr/bin/time --quiet -f %M -o "$work/peak" "$@" >/dev/null 2>"$work/last-error" || {
		echo "$name failed: $*" >&2
		cat "$work/last-error" >&2
		exit 1
	}
	keep "$name" "$(tail -n 1 "$work/peak")"
}

# figure NAME [QUANTILE]: of what is kept under the name; the median unless asked otherwise
figure() {
	awk -v name="$1" '$1 == name { print $2 }' "$results" | sort -n |
		awk -v q="${2:-0.5}" '{ all[NR] = $1 } END { at = int(q * (NR - 1) + 0.5) + 1; print all[at] }'
}

# row WHAT OURS PEER WANTED: times; how many times longer the peer takes
row() {
	awk -v what="$1" -v ours="$(figure "$2")" -v tail="$(figure "$2" 0.95)" -v peer="$(figure "$3")" -v wanted="$4" 'BEGIN {
		printf "%-42s %9.1f ms (p95 %7.1f)   peer %9.1f ms   peer/ours %5.1f   wanted %s %s\n",
			what, ours / 1000, tail / 1000, peer / 1000, peer / ours, wanted, (peer / ours >= wanted ? "reached" : "MISSED") }'
}

# rate WHAT UNIT OURS PEER WANTED: figures of which more is better; how many times the peer's
rate() {
	awk -v what="$1" -v unit="$2" -v ours="$(figure "$3")" -v peer="$(figure "$4")" -v wanted="$5" 'BEGIN {
		printf "%-42s %9.0f %-18s peer %9.0f      ours/peer %5.2f   wanted %s %s\n",
			what, ours, unit, peer, ours / peer, wanted, (ours / peer >= wanted ? "reached" : "MISSED") }'
}

# limit WHAT UNIT OURS DIVISOR MOST [QUANTILE]: a figure that is not to be above a number
limit() {
	awk -v what="$1" -v unit="$2" -v ours="$(figure "$3" "${6:-0.5}")" -v divisor="$4" -v most="$5" 'BEGIN {
		printf "%-42s %9.1f %-18s wanted at most %s %s\n",
			what, ours / divisor, unit, most, (ours / divisor <= most ? "reached" : "MISSED") }'
}

# several NUMBER COMMAND...: the command that many times at once, with {} for each one's number
several() {
	local count=$1 pids=() number pid
	shift
	for number in $(seq "$count"); do
		"${@//\{\}/$number}" &
		pids+=($!)
	done
	for pid in "${pids[@]}"; do wait "$pid"; done
}
