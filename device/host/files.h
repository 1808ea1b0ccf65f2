/*
 * A device on an ordinary computer: slots, state and boot selection are files of one directory, the network is real.
 * Its boot loader does what ESP-IDF's does with roll-back enabled. A loss of power can be had at any write.
 */
#ifndef GATEHOUSE_HOST_FILES_H
#define GATEHOUSE_HOST_FILES_H

#include "gatehouse/port.h"

#define HOST_NO_POWER 99 /* exit status of a process whose power has failed */

struct host {
    char directory[256];
    uint32_t slot_size;
    uint64_t fixed_time;  /* what the clock shows; 0: the computer's own */
    int clock_is_unknown; /* no time at all */
    int in_a_hurry;       /* sleeping takes no time, but counts as if it had */
    uint32_t slept_ms;
    long writes_left; /* the power fails in the middle of the write after these; negative: never */
    unsigned running;
};

/* Fills the port in. */
void host_port(struct host *host, struct gh_port *port);

/* An image as it comes from the factory, in slot 0; 0 or -1. */
int host_flash(struct host *host, const char *image);

/* What the boot loader does at a start: the slot that runs, or -1 when there is none. */
int host_boot(struct host *host);

#endif
