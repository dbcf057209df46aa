#!/bin/sh
# Makes the private directory of one script, and fills it from standard input.
#
# usage: setup.sh NAME RUN_LINES STOP_LINES SCRIPT_BYTES
#
# Standard input is run.sh, stop.sh and the user's script, which can hold
# anything, one after the other. Prints the path of the directory.
#
# mkdir fails when the name is taken, by a link as well, and the name can't be
# guessed: nobody else can have made the directory.
umask 077
for base in "${TMPDIR:-/tmp}" /var/tmp "${HOME:-/root}" /dev/shm; do
	case $base in /*) ;; *) continue ;; esac
	d=$base/$1
	mkdir "$d" 2>/dev/null || continue
	# Files that are written at the end get their block now: a script that
	# fills the disk must not cost its own exit status.
	if cd "$d" && cat >all && sed -n "1,$2p" all >run.sh &&
		sed -n "$(($2 + 1)),$(($2 + $3))p" all >stop.sh &&
		tail -c "$4" all >script.sh && rm all &&
		test "$(($(wc -c <script.sh)))" -eq "$4" && chmod 700 script.sh &&
		printf '%-40s\n' running >status && printf '%-80s\n' '' >err; then
		printf '%s\n' "$d"
		exit 0
	fi
	cd / && rm -rf "$d"
	exit 74
done
# shellcheck disable=SC2016 # the name, not the value
echo 'no directory for temporary files can be written: tried $TMPDIR, /tmp, /var/tmp, $HOME and /dev/shm' >&2
exit 73
