#!/bin/sh
# Makes the private directory of one script, and fills it from standard input.
#
# usage: setup.sh NAME OFFSET
#
# Standard input is, from byte OFFSET on (the first is 1), a program that makes
# the files, and before it the contents of those that it calls part for. The
# program is not an argument, since it holds secrets. Prints the path of the
# private directory.
#
# mkdir fails when the name is taken, by a link as well, and the name can't be
# guessed: nobody else can have made the directory.
umask 077
name=$1 offset=$2

# part OFFSET BYTES FILE makes a file of a part of standard input.
# shellcheck disable=SC2317 # the program calls it
part() {
	tail -c "+$1" all | head -c "$2" >"$3" && test "$(($(wc -c <"$3")))" -eq "$2"
}

for base in "${TMPDIR:-/tmp}" /var/tmp "${HOME:-/root}" /dev/shm; do
	case $base in /*) ;; *) continue ;; esac
	d=$base/$name
	mkdir "$d" 2>/dev/null || continue
	# Files that are written at the end get their block now: a script that
	# fills the disk must not cost its own exit status.
	if cd "$d" && cat >all && eval "$(tail -c "+$offset" all)" && rm all && chmod 700 script.sh &&
		: >pid && printf '%-40s\n' running >status && printf '%-80s\n' '' >err; then
		printf '%s\n' "$d"
		exit 0
	fi
	cd / && rm -rf "$d"
	exit 74
done
# shellcheck disable=SC2016 # the name, not the value
echo 'no directory for temporary files can be written: tried $TMPDIR, /tmp, /var/tmp, $HOME and /dev/shm' >&2
exit 73
