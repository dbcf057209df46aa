#!/bin/sh
# The plain recipe that workflows have without this action: start QEMU in the
# background, ask every 5 s whether SSH works, run the script, kill.
#
# usage: recipe.sh DISK FORMAT MEMORY PORT KEY SCRIPT
disk=$1 format=$2 memory=$3 port=$4 key=$5 script=$6
qemu-system-x86_64 -machine q35 -accel tcg -cpu qemu64 -m "$memory" -display none -serial none -monitor none \
	-drive "file=$disk,format=$format,snapshot=on" -nic "user,model=e1000,hostfwd=tcp:127.0.0.1:$port-:22" &
qemu=$!
trap 'kill $qemu; wait $qemu' EXIT
in_guest() {
	ssh -F none -i "$key" -p "$port" -o BatchMode=yes -o ConnectTimeout=5 -o StrictHostKeyChecking=no \
		-o UserKnownHostsFile=/dev/null -o LogLevel=ERROR root@127.0.0.1 "$@"
}
tries=0
until in_guest true 2>/dev/null; do
	tries=$((tries + 1))
	test $tries -lt 60 || exit 1
	sleep 5
done
in_guest sh -s <"$script"
