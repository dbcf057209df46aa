#!/bin/sh
# Makes the private directory of one script, and fills it from standard input.
#
# usage: setup.sh NAME [FILE BYTES]...
#
# Standard input is the content of each FILE, which can hold anything, one after
# the other; a FILE that ends with / is a directory. Prints the path of the
# private directory.
#
# mkdir fails when the name is taken, by a link as well, and the name can't be
# guessed: nobody else can have made the directory.
umask 077
name=$1
shift

unpack() {
	at=1
	while test $# -gt 0; do
		case $1,$2 in
		*/,*) mkdir "$1" || return ;;
		*,0) : >"$1" || return ;;
		*)
			tail -c "+$at" all | head -c "$2" >"$1" &&
				test "$(($(wc -c <"$1")))" -eq "$2" || return
			;;
		esac
		at=$((at + $2))
		shift 2
	done
}

for base in "${TMPDIR:-/tmp}" /var/tmp "${HOME:-/root}" /dev/shm; do
	case $base in /*) ;; *) continue ;; esac
	d=$base/$name
	mkdir "$d" 2>/dev/null || continue
	# Files that are written at the end get their block now: a script that
	# fills the disk must not cost its own exit status.
	if cd "$d" && cat >all && unpack "$@" && rm all && chmod 700 script.sh &&
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
