#!/bin/sh
# Writes a file from standard input.
#
# usage: write.sh PATH MODE OWNER[:GROUP] replace|append
#
# A file that exists is written in place, as cloud-init does: a link stays one.
set -eu
# The content may be a secret; whoever may read it is decided below.
(umask 022 && mkdir -p -- "$(dirname -- "$1")")
umask 077
if test "$4" = append; then
	cat >>"$1"
else
	cat >"$1"
fi
chown -- "$3" "$1"
chmod -- "$2" "$1"
