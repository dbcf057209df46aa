#!/bin/sh
# Gives a guest that was restored keys, randomness and a time of its own: others
# may have been restored from the same saved machine.
#
# usage: renew.sh SECONDS [FILE BYTES]...
#
# Standard input is, one after the other, what each FILE shall begin with; what
# follows in it stays. SECONDS is the time. The last line that is printed is
# "renewed", or "renewed noclock" when the time could not be set.
now=$1
shift
umask 077
for dir in /run /tmp /var/tmp "$HOME"; do
	all=$dir/hurd-qemu-action.renew.$$
	# mkdir fails when somebody else was first.
	mkdir "$all" 2>/dev/null && break
	all=
done
test -n "$all" || exit 73
trap 'rm -rf "$all"' EXIT
cat >"$all/in" || exit 74

at=1
while test $# -gt 0; do
	if test -c "$1"; then
		# The kernel's own source of randomness may take what it likes.
		tail -c "+$at" "$all/in" | head -c "$2" >"$1" 2>/dev/null
	else
		tail -c "+$at" "$all/in" | head -c "$2" 1<>"$1" || exit 74
	fi
	at=$((at + $2))
	shift 2
done

clock=
date -u -s "@$now" >/dev/null 2>&1 || clock=' noclock'
echo "renewed$clock"
