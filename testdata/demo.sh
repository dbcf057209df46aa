echo "Hello from $(uname -srm)."
echo "I am $(id -un) in $(pwd), it is $(date -u '+%Y-%m-%d %H:%M:%S') UTC."
echo "This is an error message." >&2
