#!/bin/sh
# Gives a guest that was restored keys, randomness and a time of its own: others
# may have been restored from the same saved machine.
#
# usage: renew.sh SECONDS
#
# Standard input is a program that writes what files shall begin with, and fails
# when it can't; what follows in the files stays. It is not an argument, since it
# holds keys. SECONDS is the time. The last line that is printed is "renewed", or
# "renewed noclock" when the time could not be set.
umask 077
eval "$(cat)" || exit 74
clock=
date -u -s "@$1" >/dev/null 2>&1 || clock=' noclock'
echo "renewed$clock"
