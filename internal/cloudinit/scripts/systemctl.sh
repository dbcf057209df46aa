#!/bin/sh
# Goes before the commands of runcmd and bootcmd. User-data is written for
# systems with systemd, which no Hurd has: the few things that it asks of
# systemctl again and again are done by the means of Debian's sysvinit.
command -v systemctl >/dev/null 2>&1 || systemctl() (
	verb='' now='' units=''
	for word; do
		case $word in
		--now) now=yes ;;
		--quiet | -q | --no-block) ;;
		-*) verb=unknown ;;
		*) if test -z "$verb"; then verb=$word; else units="$units ${word%.service}"; fi ;;
		esac
	done
	case $verb in
	daemon-reload) exit 0 ;; # nothing caches scripts here
	enable | disable | start | stop | restart | reload) test -n "$units" || verb=unknown ;;
	*) verb=unknown ;;
	esac
	if test "$verb" = unknown; then
		echo "systemctl $*: this guest has no systemd; use service NAME start, update-rc.d NAME enable or a plain command" >&2
		exit 127
	fi
	status=0
	for unit in $units; do
		test -e "/etc/init.d/$unit" || {
			echo "systemctl $*: this guest has no systemd, and there is no /etc/init.d/$unit either: is the service installed, and is that its name?" >&2
			exit 5
		}
		echo "systemctl: this guest has no systemd; $verb $unit is done with its script in /etc/init.d"
		case $verb in
		enable | disable)
			update-rc.d "$unit" defaults && update-rc.d "$unit" "$verb" || status=1
			test -z "$now" || test "$verb" = disable || "/etc/init.d/$unit" start || status=1
			test -z "$now" || test "$verb" = enable || "/etc/init.d/$unit" stop || status=1
			;;
		*) "/etc/init.d/$unit" "$verb" || status=1 ;;
		esac
	done
	exit $status
)
