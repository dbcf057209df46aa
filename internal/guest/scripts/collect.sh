#!/bin/sh
# Reports how a script ended and what is in its files, and removes its directory.
#
# usage: collect.sh DIR MARK [FILE BYTES]...
#
# Prints, each after a line that is MARK, which nobody can have guessed: what
# run.sh has recorded; for each FILE of DIR/files its size in a line (-1: there
# is no such file) and no more than BYTES of its beginning; and at the end
# nothing. What comes before the first MARK is not from here.
d=$1 mark=$2
shift 2
read -r record <"$d/status"
printf '\n%s\n%s' "$mark" "$record"
while test $# -gt 0; do
	f=$d/files/$1
	printf '\n%s\n' "$mark"
	# A link could lead to what is not the script's to read. Nothing is started for
	# an empty file, as most are.
	if test -f "$f" && test ! -L "$f" && test ! -s "$f"; then
		echo 0
	elif test -f "$f" && test ! -L "$f" && size=$(wc -c <"$f"); then
		echo $((size))
		head -c "$2" "$f"
	else
		echo -1
	fi
	shift 2
done
printf '\n%s\n' "$mark"
rm -rf "$d"
