#!/bin/sh
# Makes the private directory of one script, fills it from standard input, and
# runs a command that starts the script: one session does what two would, which
# cost an emulated guest a tenth of a second each.
#
# usage: setup.sh DIR OFFSET COMMAND [SUBDIRECTORY...]
#
# Each SUBDIRECTORY begins with DIR/: one mkdir makes them all.
#
# Standard input is, from byte OFFSET on (the first is 1), a program that makes
# the files, and before it the contents of those that it calls part for. The
# program is not an argument, since it holds secrets; it says by ready=yes that
# nothing of it is missing. With an OFFSET of 0 it is a function, fill, and
# nothing is read. Prints DIR in a line of its own when all is there;
# what follows is the command's, whose standard input is empty.
#
# mkdir fails when the name is taken, by a link as well, and the name can't be
# guessed: nobody else but stop.sh's caller can have made the directory.
d=$1 offset=$2 command=$3 ready=
shift 3

# part OFFSET BYTES FILE makes a file of a part of standard input.
# shellcheck disable=SC2317 # the program calls it
part() {
	tail -c "+$1" all | head -c "$2" >"$3" && test "$(($(wc -c <"$3")))" -eq "$2"
}

(
	umask 077
	mkdir "$d" "$@" || exit 73
	# Files that are written at the end get their block now: a script that
	# fills the disk must not cost its own exit status.
	if cd "$d" && if test "$offset" = 0; then
		fill
	elif test "$offset" -gt 1; then
		cat >all && eval "$(tail -c "+$offset" all)" && rm all
	else
		eval "$(cat)"
	fi && test "$ready" = yes && : >pid && printf '%-40s\n' running >status && printf '%-80s\n' '' >err; then
		exit
	fi
	cd / && rm -rf "$d"
	exit 74
) || exit
printf '\n%s\n' "$d" || exit # nobody listens any more
exec </dev/null
eval "$command"
