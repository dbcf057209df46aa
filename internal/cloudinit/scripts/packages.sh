#!/bin/sh
# Brings packages into a Debian guest.
#
# usage: packages.sh update | dist-upgrade | install PACKAGE...
set -eu
command -v apt-get >/dev/null 2>&1 || {
	echo 'the guest has no apt-get, the only package manager that is known here: use runcmd' >&2
	exit 1
}
export DEBIAN_FRONTEND=noninteractive
action=$1
shift
test $# -eq 0 || set -- -- "$@"
# Nobody is there to answer: configuration files stay as they are.
exec apt-get -q -y -o Acquire::Retries=3 -o DPkg::Lock::Timeout=120 \
	-o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold "$action" "$@" </dev/null
