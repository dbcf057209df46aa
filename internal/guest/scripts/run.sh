#!/bin/sh
# Runs the user's script and records how it ended.
#
# usage: run.sh DIR WORKDIR [SHELL ARG...]
#
# DIR was made by setup.sh. Without a SHELL the script runs under bash -eo
# pipefail, or sh -e where there is no bash. The end is recorded in DIR/status:
#
#	exit N      the script ended with status N
#	signal N    signal N killed it
#	nodir       WORKDIR is no directory that can be entered
#	noshell S   there is no program S
#
# The SSH server can't be asked: the Hurd's reports no signals at all.
d=$1 dir=$2
shift 2

record() {
	# Overwrites in place: nothing is allocated, so that a full disk is no matter.
	printf '%s \n' "$*" 1<>"$d/status"
}

# A handler, unlike an ignored signal, is not inherited by the script.
trap : HUP INT TERM

# shellcheck disable=SC2088 # a user's tilde, expanded here
case $dir in
'') ;;
'~') cd "$HOME" ;;
'~/'*) cd "$HOME/${dir#'~/'}" ;;
/*) cd "$dir" ;;
*) CDPATH='' cd "./$dir" ;;
esac || {
	record nodir
	exit 72
}

if test $# -eq 0; then
	if command -v bash >/dev/null 2>&1; then
		set -- bash -eo pipefail "$d/script.sh"
	else
		set -- sh -e "$d/script.sh"
	fi
elif ! command -v "$1" >/dev/null 2>&1; then
	record "noshell $1"
	exit 127
fi

# The script gets a session of its own, so that it can be ended with all its
# processes: the group that we are in may be the SSH server's. What it is goes
# into DIR/pid; DIR/stop means that stop.sh came first. DIR/env is a program that
# sets the script's environment, in which hurd_files names a directory; it is
# run where no variable of ours can get in its way, or it in ours, and emptied.
own=process
command -v setsid >/dev/null 2>&1 && own=session
# shellcheck disable=SC2016 # for the inner shell
start='echo "$1" $$ >"$2/pid"; test ! -e "$2/stop" || exit 143
if test -s "$2/env"; then hurd_files=$2/files; . "$2/env"; unset hurd_files; : >"$2/env"; fi
shift 2
exec "$@"'

# A shell reports a child's death by a signal on its standard error, and says
# nothing about an exit status above 128: that is how the two are told apart.
# (Of SIGINT and SIGPIPE it says nothing either.) Only this line's reports go to
# the file; the subshell has the real standard error.
exec 3>&2 2<>"$d/err"
if test $own = session; then
	(exec setsid sh -c "$start" sh $own "$d" "$@" </dev/null 2>&3 3>&-)
else
	(exec sh -c "$start" sh $own "$d" "$@" </dev/null 2>&3 3>&-)
fi
status=$?
exec 2>&3 3>&-

report=
read -r report <"$d/err"
if test $status -eq 130 || test $status -eq 141 ||
	{ test $status -gt 128 && test -n "$report"; }; then
	record "signal $((status - 128))"
else
	record "exit $status"
fi
exit $status
