#!/bin/sh
# web-reload MASTER: has nginx read its configuration again, and tells whether it goes on with the new one.
#
# nginx says nothing to whoever asks. Where it can't go on (an address that it listens at already in another way), it
# keeps the old configuration and its workers; otherwise there are new ones within a moment.
master=$1

workers() {
    for each in $(grep -lsz '^nginx: worker process$' /proc/[0-9]*/cmdline); do
        folder=${each%/cmdline}
        ! grep -qs "^PPid:[[:space:]]*$master$" "$folder/status" || echo "${folder#/proc/}"
    done
}

before=" $(workers | tr '\n' ' ')"
kill -HUP "$master" || exit 1
left=50
while [ $left -gt 0 ]; do
    for worker in $(workers); do
        case $before in *" $worker "*) ;; *) exit 0 ;; esac
    done
    left=$((left - 1))
    sleep 0.1
done
echo 'nginx goes on with its old configuration: restart it' >&2
exit 1
