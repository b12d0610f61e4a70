#!/bin/bash
# Ordinary work, chapter by chapter. Runs as root in a throw-away copy of the system: see ../__main__.py.
export WORK=/run/work

run() { # the account, then the command; one that fails or hangs doesn't keep the rest from being done
    local who=$1; shift
    printf '%s %s: %s\n' "$(date +%T)" "$who" "$*"
    if [ "$who" = root ]; then
        (cd /root && timeout 240 "$@")
    else
        timeout 240 runuser --user dev -- env HOME=/home/dev USER=dev LOGNAME=dev bash -c 'cd && exec "$@"' bash "$@"
    fi < /dev/null 2>&1
    local status=$?
    [ $status = 0 ] || printf '  status %s\n' $status
    sleep "$PAUSE"
}
as_root() { run root "$@"; }
as_dev() { run dev "$@"; }
in_project() { run dev sh -c 'cd project && exec "$@"' sh "$@"; }

# A command in a terminal of its own, and what is typed into it, a second apart.
on_a_terminal() {
    local command=$1; shift
    printf '%s terminal: %s\n' "$(date +%T)" "$command"
    {
        sleep 1
        for typed in "$@"; do printf '%b\n' "$typed"; sleep 0.5; done
    } | timeout 20 runuser --user dev -- env HOME=/home/dev TERM=xterm script --quiet --command "cd; $command" /dev/null 2>&1
}

for chapter in "$WORK"/[0-9]*.sh; do
    [[ -z $CHAPTERS || " $CHAPTERS " = *" $(basename "$chapter" .sh) "* ]] || continue
    printf '\n== %s %s\n' "$(date +%T)" "$(basename "$chapter")"
    . "$chapter"
done
