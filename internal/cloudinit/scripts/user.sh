#!/bin/sh
# Makes a user, or completes one that exists. The first line of standard input
# is a password or its hash, when FLAGS say so: neither is for a command line.
#
# usage: user.sh NAME GECOS HOME SHELL PRIMARY-GROUP GROUPS UID FLAGS
#
# Empty arguments mean the system's defaults; GROUPS and FLAGS are separated by
# blanks. FLAGS: system, no-home, no-group, hash (of a new user), any-hash (of
# an existing user too), plain, lock.
#
# What useradd and its like do is done by hand where they are missing.
set -eu
name=$1 gecos=$2 home=$3 shell=$4 primary=$5 groups=$6 uid=$7 flags=" $8 "
secret=
IFS= read -r secret || :

flag() {
	case $flags in *" $1 "*) return 0 ;; esac
	return 1
}
# in_file FILE NAME tells whether the first field of a line is NAME.
in_file() { cut -d : -f 1 "$1" | grep -qxF -- "$2"; }
has() { command -v "$1" >/dev/null 2>&1; }
# free_id prints an id from 1000 on that is nobody's yet.
free_id() {
	cat /etc/passwd /etc/group | awk -F : '{taken[$3] = 1} END {for (n = 1000; n in taken; n++); print n}'
}
# rewrite FILE runs awk on FILE, in place so that owner and mode stay.
rewrite() {
	file=$1
	shift
	text=$(awk "$@" "$file")
	printf '%s\n' "$text" >"$file"
}
# shadow VALUE sets the password's hash.
shadow() {
	if has chpasswd; then
		printf '%s:%s\n' "$name" "$1" | chpasswd -e
	else
		HASH=$1
		export HASH
		# shellcheck disable=SC2016 # these are awk's
		rewrite /etc/shadow -F : -v OFS=: -v name="$name" '$1 == name {$2 = ENVIRON["HASH"]} {print}'
	fi
}
make_group() {
	in_file /etc/group "$1" && return
	if has groupadd; then groupadd -- "$1"; else printf '%s:x:%s:\n' "$1" "${2:-$(free_id)}" >>/etc/group; fi
}
make_user() {
	set --
	test -z "$gecos" || set -- "$@" -c "$gecos"
	test -z "$home" || set -- "$@" -d "$home"
	test -z "$shell" || set -- "$@" -s "$shell"
	test -z "$uid" || set -- "$@" -u "$uid"
	test -z "$primary" || set -- "$@" -g "$primary"
	if flag system; then set -- "$@" -r; fi
	if flag no-home || flag system; then set -- "$@" -M; else set -- "$@" -m; fi
	if flag no-group; then set -- "$@" -N; fi
	useradd "$@" -- "$name"
}
make_user_by_hand() {
	: "${uid:=$(free_id)}" "${home:=/home/$name}" "${shell:=/bin/sh}"
	if test -n "$primary"; then
		:
	elif flag no-group; then
		primary=nogroup
	else
		primary=$name
		make_group "$name" "$uid"
	fi
	gid=$(awk -F : -v name="$primary" '$1 == name {print $3}' /etc/group)
	printf '%s:x:%s:%s:%s:%s:%s\n' "$name" "$uid" "$gid" "$gecos" "$home" "$shell" >>/etc/passwd
	printf '%s:!:19000:0:99999:7:::\n' "$name" >>/etc/shadow
	if flag no-home || flag system || test -d "$home"; then return; fi
	mkdir -p -- "$home"
	test ! -d /etc/skel || cp -R /etc/skel/. "$home"
	chown -R "$uid:$gid" "$home"
	chmod 755 "$home"
}

for group in $primary $groups; do make_group "$group"; done
new=yes
if in_file /etc/passwd "$name"; then
	new=
	echo "the user $name exists; name, home and shell stay as they are"
elif has useradd; then
	make_user
else
	make_user_by_hand
fi
for group in $groups; do
	if has usermod; then
		usermod -a -G "$group" "$name"
	else
		# shellcheck disable=SC2016 # these are awk's
		rewrite /etc/group -F : -v OFS=: -v group="$group" -v name="$name" '
			$1 == group && ("," $4 ",") !~ ("," name ",") {$4 = $4 ($4 == "" ? "" : ",") name} {print}'
	fi
done
if flag any-hash || { flag hash && test -n "$new"; }; then
	shadow "$secret"
elif flag plain; then
	has chpasswd || {
		echo 'the guest has no chpasswd, which plain_text_passwd needs: give passwd, a hash, instead' >&2
		exit 1
	}
	printf '%s:%s\n' "$name" "$secret" | chpasswd
fi
# Not with a "!", as passwd -l does: a server without PAM refuses keys then.
if flag lock; then shadow '*'; fi
