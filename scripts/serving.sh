# For scripts that start a server, to be sourced.

# ready PID LOG TRIES: waits until the server of this process has written `ready http://...` to LOG, so many quarters of a
# second at most, and prints the address. Where it does not come, LOG goes to stderr and the status is 1.
ready() {
    local tries=0
    until grep -q '^ready' "$2"; do
        kill -0 "$1" 2>/dev/null || { cat "$2" >&2; return 1; }
        tries=$((tries + 1))
        [ $tries -lt "$3" ] || { cat "$2" >&2; return 1; }
        sleep 0.25
    done
    sed -n 's!^ready *\(http://[^ ]*\).*!\1!p' "$2"
}
