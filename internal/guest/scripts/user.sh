#!/bin/sh
# Makes a user unless there is one of that name.
#
# usage: user.sh USER
#
# USER is a name of letters, digits, _, - and dots. Prints a line, either of
#
#	user UID GID existed|created HOME
#	nouser WHY
user=$1 made=existed

refuse() {
	echo "nouser $*"
	exit 1
}

# enter does by hand what useradd does, in a guest so small that it has none.
enter() {
	id=1000
	while grep -q "^[^:]*:[^:]*:$id:" /etc/passwd /etc/group; do
		id=$((id + 1))
	done
	echo "$user:*:$id:" >>/etc/group && mkdir -p "/home/$user" && chown "$id:$id" "/home/$user" &&
		echo "$user:*:$id:$id::/home/$user:$shell" >>/etc/passwd
}

if ! id -u "$user" >/dev/null 2>&1; then
	test "$(id -u)" -eq 0 || refuse "there is no such user, and $(id -un) can't make one"
	shell=$(command -v bash) || shell=/bin/sh
	if command -v useradd >/dev/null 2>&1; then
		why=$(useradd -m -s "$shell" "$user" 2>&1)
	elif command -v adduser >/dev/null 2>&1; then
		why=$(adduser -D -s "$shell" "$user" 2>&1) ||
			why=$(adduser --disabled-password --gecos '' --shell "$shell" "$user" 2>&1)
	else
		why=$(enter 2>&1)
	fi
	# shellcheck disable=SC2086,SC2116 # makes one line
	id -u "$user" >/dev/null 2>&1 || refuse "it could not be made: $(echo $why)"
	made=created
fi
entry=$(getent passwd "$user" 2>/dev/null || grep "^$user:" /etc/passwd)
home=${entry%:*}
echo "user $(id -u "$user") $(id -g "$user") $made ${home##*:}"
