#!/bin/sh
# Sends a signal to a script that run.sh has started, and to its processes.
#
# usage: stop.sh DIR SIGNAL
#
# Nothing is killed that is not the script's: only the session that run.sh made
# for it or, where there is no setsid, its descendants.
d=$1 signal=$2
again=no
test ! -e "$d/stop" || again=yes
: >"$d/stop"
# A script that has ended by itself leaves behind what it wants to. One that a
# first call has ended may have processes that did not heed the signal.
read -r state _ <"$d/status" && { test "$state" = running || test $again = yes; } || exit 0
read -r own pid 2>/dev/null <"$d/pid" || exit 0

# table prints "PID PPID SESSION" of every process, from /proc/PID/stat: "PID
# (name) state ppid pgrp session ...", where the name can hold anything.
table() {
	for f in /proc/[0-9]*/stat; do
		read -r line 2>/dev/null <"$f" || continue
		p=${f#/proc/}
		# shellcheck disable=SC2086 # split into fields
		set -- ${line##*) }
		echo "${p%/stat} ${2:-0} ${4:-0}"
	done
}

if test "$own" = session; then
	kill -s "$signal" -- "-$pid" 2>/dev/null
	# Those that have made a process group of their own.
	table | while read -r p _ session; do
		test "$session" != "$pid" || kill -s "$signal" "$p" 2>/dev/null
	done
	exit 0
fi

# Descendants: each is stopped before its children are looked for, so that it
# can't have another one meanwhile. An orphan is nobody's descendant: what an
# earlier call has found is kept.
family=' ' news="$pid $(cat "$d/family" 2>/dev/null)"
while test -n "$news"; do
	for p in $news; do
		kill -s STOP "$p" 2>/dev/null
		family="$family$p "
	done
	news=$(table | while read -r p parent _; do
		case $family in
		*" $p "*) ;;
		*" $parent "*) echo "$p" ;;
		esac
	done)
done
echo "$family" >"$d/family"
for p in $family; do
	kill -s "$signal" "$p" 2>/dev/null
	kill -s CONT "$p" 2>/dev/null
done
exit 0
