#!/bin/sh
# Adds rules to the file in which cloud-init keeps its own. They come on
# standard input, one per line.
set -eu
file=/etc/sudoers.d/90-cloud-init-users
mkdir -p /etc/sudoers.d
umask 0337
while IFS= read -r rule; do
	if test -e "$file" && grep -qxF -- "$rule" "$file"; then continue; fi
	printf '%s\n' "$rule" >>"$file"
done
chmod 440 "$file"
if command -v visudo >/dev/null 2>&1; then
	visudo -cqf "$file"
else
	echo 'sudo is not installed in the guest, and the rule waits for it: list sudo in packages'
fi
