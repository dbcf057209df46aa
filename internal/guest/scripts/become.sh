#!/bin/sh
# Starts run.sh as another user.
#
# usage: become.sh DIR USER LINE
#
# USER is a name of letters, digits, _, - and dots. LINE is the command line of
# run.sh. When it could not be started DIR/status says
#
#	nouser WHY
#
# DIR and the programs in it stay root's, who may have to run stop.sh: what the
# user gets is the script and the files that are written to.
d=$1 user=$2 line=$3

refuse() {
	printf 'nouser %s\n' "$*" 1<>"$d/status"
	exit 77
}
quote() {
	printf "'%s'" "$(printf '%s\n' "$1" | sed "s/'/'\\\\''/g")"
}

test "$(id -u)" -eq 0 || refuse "only root can run it as another user, and the login is $(id -un)"
id -u "$user" >/dev/null 2>&1 || refuse there is no such user
if command -v su >/dev/null 2>&1; then
	su=su
elif command -v runuser >/dev/null 2>&1; then
	su=runuser
else
	refuse there is no su
fi

# What a login would set. su keeps root's, or sets something of its own.
entry=$(getent passwd "$user" 2>/dev/null || grep "^$user:" /etc/passwd)
shell=${entry##*:}
home=${entry%:*}
home=${home##*:}
path=$(sed -n 's/^ENV_PATH[[:space:]]*//p' /etc/login.defs 2>/dev/null)
path=${path#PATH=}

cd "$d" || exit
if ! chmod 711 . || ! chmod 755 run.sh; then
	refuse its directory could not be opened to it
fi
for f in script.sh status err pid env files; do
	test ! -e $f || chown -R "$user:$(id -g "$user")" $f || refuse its files could not be given to it
done
cd / || exit

# The user's own shell may be one that lets nobody in.
$su -s /bin/sh -c "HOME=$(quote "${home:-/}") USER=$user LOGNAME=$user SHELL=$(quote "${shell:-/bin/sh}") PATH=$(quote "${path:-$PATH}")
export HOME USER LOGNAME SHELL PATH
unset MAIL SSH_CLIENT SSH_CONNECTION SSH_TTY
cd \"\$HOME\" 2>/dev/null || cd /
exec $line" "$user"
status=$?
read -r state _ <"$d/status"
if test "$state" = running && test ! -s "$d/pid"; then
	refuse "$su ended with status $status and has not started it"
fi
exit $status
