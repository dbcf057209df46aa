#!/bin/sh
# Sets the time zone.
#
# usage: timezone.sh NAME
set -eu
test -f "/usr/share/zoneinfo/$1" || {
	echo "the guest has no time zone $1 in /usr/share/zoneinfo: is the package tzdata installed?" >&2
	exit 1
}
printf '%s\n' "$1" >/etc/timezone
ln -sf "/usr/share/zoneinfo/$1" /etc/localtime
