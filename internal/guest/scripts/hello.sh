#!/bin/sh
# The first command of a connection: tells what the guest is and where a script
# can be put, and makes what was restored or has drifted the guest's own again.
#
# usage: hello.sh [SECONDS [BYTES]]
#
# With SECONDS the clock is set to that time, unless it is no more than a second
# off: that is what a boot leaves, and no program has to be started for it. With
# BYTES, standard input begins with a program of that size that writes what files
# shall begin with, and fails when it can't; what follows in the files stays. It
# is not an argument, since it holds keys; it says by renewed=yes that nothing of
# it is missing.
#
# The shell may become the first script's: no variable of a login's environment
# may be changed.
#
# Prints an empty line, since a login shell may have printed half of one, and
#
#	uname WHAT-THE-GUEST-IS         not with BYTES: that is what it was
#	shell LOGIN-SHELL
#	tmp DIRECTORY                   each that looks as if temporary files could go there
#	clock SECONDS-BEFORE STATUS-OF-SETTING-IT WHAT-DATE-SAID    before: not with BYTES
echo
hurd_was=-
if test -n "$2"; then
	(umask 077 && renewed= && eval "$(head -c "$2")" && test "$renewed" = yes) || exit 74
elif test -n "$1"; then
	hurd_was=$(date -u +%s 2>/dev/null) || hurd_was='?'
fi
if test -n "$1"; then
	case $hurd_was in
	$(($1 - 1)) | "$1" | $(($1 + 1))) echo "clock $hurd_was 0" ;;
	*)
		hurd_said=$(date -u -s "@$1" 2>&1 >/dev/null)
		# shellcheck disable=SC2086,SC2116 # makes one line
		echo "clock $hurd_was $? "$hurd_said
		;;
	esac
fi
echo "shell $SHELL"
for hurd_base in "${TMPDIR:-/tmp}" /var/tmp "${HOME:-/root}" /dev/shm; do
	case $hurd_base in /*) ;; *) continue ;; esac
	if test -d "$hurd_base" && test -w "$hurd_base"; then
		printf 'tmp %s\n' "$hurd_base"
	fi
done
test -n "$2" || { printf 'uname ' && uname -a; }
