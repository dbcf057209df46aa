#!/bin/sh
# Takes the workspace's drive out of the guest's hands, so that all that was
# written to it is on the disk and the file system is in order.
#
# usage: detach.sh PATH
#
# The last line that is printed is "detached", or "readonly" when something in
# the guest still uses the file system, which then can't change it any more.
# Ends with 1 when neither worked.
path=$1
cd / || exit 1
case $(uname -s) in
GNU)
	settrans -ag "$path" && echo detached && exit 0
	fsysopts "$path" --readonly && echo readonly && exit 0
	settrans -afg "$path" && echo detached && exit 0
	;;
Linux)
	umount "$path" && echo detached && exit 0
	mount -o remount,ro "$path" && echo readonly && exit 0
	;;
esac
sync
exit 1
