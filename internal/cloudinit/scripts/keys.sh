#!/bin/sh
# Lets keys in: those on standard input, one per line.
#
# usage: keys.sh USER
set -eu
entry=$(awk -F : -v name="$1" '$1 == name {print $3 ":" $4 ":" $6; exit}' /etc/passwd)
test -n "$entry" || {
	echo "the guest has no user $1" >&2
	exit 1
}
owner=${entry%:*} home=${entry##*:}
test -d "$home" || {
	mkdir -p -- "$home"
	chown "$owner" "$home"
}
umask 077
mkdir -p "$home/.ssh"
file=$home/.ssh/authorized_keys
# The last line may lack its end.
if test -s "$file" && test -n "$(tail -c 1 "$file")"; then echo >>"$file"; fi
while IFS= read -r key; do
	if test -e "$file" && grep -qxF -- "$key" "$file"; then continue; fi
	printf '%s\n' "$key" >>"$file"
done
chown "$owner" "$home/.ssh" "$file"
chmod 700 "$home/.ssh"
chmod 600 "$file"
