# Functions for the steps of e2e.yml that check what an earlier step reported.
# shellcheck shell=bash

# fail reports $1 as an annotation and ends the step.
fail() {
	printf '::error::%s\n' "${1//$'\n'/%0A}"
	exit 1
}

# expect NAME GOT WANT compares.
expect() {
	[[ $2 == "$3" ]] || fail "$1 is '$2', not '$3'"
	printf 'ok: %s is %s\n' "$1" "${3:-empty}"
}

# expect_match NAME GOT REGEXP wants a match.
expect_match() {
	[[ $2 =~ $3 ]] || fail "$1 is '$2', which does not match $3"
	printf 'ok: %s is %s\n' "$1" "$2"
}

# expect_line NAME PATH REGEXP wants a path relative to the workspace, and a
# matching line in that file.
expect_line() {
	[[ -n $2 && $2 != /* ]] || fail "$1 is '$2', not a path relative to the workspace"
	[[ -s $2 ]] || fail "$1 names $2, which is missing or empty"
	grep -q -e "$3" -- "$2" || fail "$1: no line of $2 matches $3"
	printf 'ok: %s is %s\n' "$1" "$2"
}
