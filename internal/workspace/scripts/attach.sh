#!/bin/sh
# Puts the workspace's drive in its place in the guest.
#
# usage: attach.sh UUID PATH [DEV]
#
# DEV is where the devices are, /dev.
# UUID, in 32 hexadecimal digits, is the file system's: which disk it is differs
# from guest to guest, and from kernel to kernel. The last line that is printed
# is "attached DEVICE". Ends with 65 for a guest that is neither a Hurd nor a
# Linux, 66 when the drive is not there, 77 without the right to do this, and 1
# when it did not work.
uuid=$1 path=$2 dev=${3:-/dev}
system=$(uname -s)

fail() {
	printf '%s\n' "$2" >&2
	exit "$1"
}

test "$(id -u)" -eq 0 || fail 77 "only root can do this, and this is $(id -un)"

# found tells whether a disk holds the file system: an ext2 superblock begins
# 1024 bytes from the start and has its UUID in the bytes from 104 on.
found() {
	# shellcheck disable=SC2046 # the words are put together again
	set -- $(dd if="$1" bs=4096 count=1 2>/dev/null | od -An -v -tx1 -j 1128 -N 16 2>/dev/null)
	words=
	for word; do words=$words$word; done
	test "$words" = "$uuid"
}

# The first that is found ends the search: each look costs an emulated guest
# several processes.
drive=

case $system in
GNU)
	# The second disk first, under the names of the kernel's own drivers (hd, sd)
	# and of rumpdisk (wd). A node that is missing is made.
	for name in hd1 wd1 sd1 hd2 wd2 sd2 hd3 wd3 sd3 hd0 wd0 sd0; do
		device=$dev/$name
		test -e "$device" || (cd "$dev" && sh ./MAKEDEV "$name") >/dev/null 2>&1
		test -e "$device" || continue
		# A translator that has read the disk before it was changed under a saved
		# machine goes; the next use starts another one.
		settrans -ag "$device" >/dev/null 2>&1
		if found "$device"; then
			drive=$device
			break
		fi
	done
	;;
Linux)
	# The second disk first here too.
	for device in "$dev"/[shv]d[b-z] "$dev"/xvd[b-z] "$dev"/nvme[1-9]n1 "$dev"/[shv]da "$dev"/xvda "$dev"/nvme0n1; do
		test -e "$device" || continue
		# What the kernel read before the drive was changed under a saved machine.
		blockdev --flushbufs "$device" >/dev/null 2>&1
		if found "$device"; then
			drive=$device
			break
		fi
	done
	;;
*) fail 65 "a guest of the system $system is not known" ;;
esac
test -n "$drive" || fail 66 "no disk of the guest holds the workspace's file system"

mkdir -p "$path" || exit 1
if test "$system" = GNU; then
	# An active translator only: it is gone with the machine.
	settrans -a "$path" /hurd/ext2fs "$device" || exit 1
	fsysopts "$path" --writable || exit 1
	case $(fsysopts "$path") in
	*--writable*) ;;
	*) fail 1 "the file system on $device can't be written: $(fsysopts "$path")" ;;
	esac
else
	mount -t ext2 "$device" "$path" || exit 1
fi
printf 'attached %s\n' "$device"
