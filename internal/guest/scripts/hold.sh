#!/bin/sh
# Follows hello.sh in its shell, whose session then becomes that of the
# connection's first script: says that hello.sh is done, and runs the program
# that comes on standard input when there is a script.
#
# usage: hello.sh's, whose third argument is MARK: a line that nobody can have
# guessed, printed after hello.sh's answer. No program means that there is no
# script for this session.
#
# The program is read to its end before any of it is run, and is one command: of
# one that was cut off nothing is run.
hurd_status=$?
test "$hurd_status" = 0 || exit "$hurd_status"
printf '%s\n' "$3" || exit
eval "$(cat)"
