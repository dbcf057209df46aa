#!/bin/sh
# Names the guest.
#
# usage: hostname.sh NAME
set -eu
printf '%s\n' "$1" >/etc/hostname
hostname "$1"
