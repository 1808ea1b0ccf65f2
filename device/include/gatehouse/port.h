/*
 * What the library needs of a device: two slots, a place for its state, boot selection, a clock, and the network.
 * Every function gets `self`. Unless said otherwise, 0 is success and anything else is failure.
 */
#ifndef GATEHOUSE_PORT_H
#define GATEHOUSE_PORT_H

#include <stddef.h>
#include <stdint.h>

#define GH_SLOTS 2

/* How the boot loader sees a slot. */
enum gh_boot {
    GH_BOOT_NONE,   /* nothing was ever started from it */
    GH_BOOT_NEW,    /* the next start tries it */
    GH_BOOT_TRYING, /* it runs for the first time; unless it is confirmed, the next start takes the other one */
    GH_BOOT_VALID,  /* confirmed */
    GH_BOOT_FAILED  /* was tried, and not confirmed */
};

struct gh_port {
    void *self;

    /* The slots. Offsets and lengths that are written are multiples of 16, but for the end of an image. */
    uint32_t (*slot_size)(void *self, unsigned slot);
    int (*slot_erase)(void *self, unsigned slot, uint32_t size);
    int (*slot_write)(void *self, unsigned slot, uint32_t offset, const uint8_t *data, size_t length);
    int (*slot_read)(void *self, unsigned slot, uint32_t offset, uint8_t *data, size_t length);

    /* The library's state, in two copies; a write may be torn by a loss of power, a copy that was never written fails. */
    int (*state_read)(void *self, unsigned copy, uint8_t *data, size_t length);
    int (*state_write)(void *self, unsigned copy, const uint8_t *data, size_t length);

    /* Boot selection. Each change is whole or not there after a loss of power. */
    unsigned (*boot_running)(void *self);
    enum gh_boot (*boot_state)(void *self, unsigned slot);
    int (*boot_try)(void *self, unsigned slot);
    int (*boot_confirm)(void *self);
    int (*boot_revert)(void *self); /* the running image has failed: the next start takes the other one; may restart */
    int (*boot_forget)(void *self, unsigned slot); /* a slot that has failed is GH_BOOT_NONE again */

    /* Seconds since 1970-01-01 UTC, 0 while it is not known; milliseconds since some moment, never going back. */
    uint64_t (*now)(void *self);
    uint32_t (*ticks)(void *self);
    void (*sleep_ms)(void *self, uint32_t milliseconds);

    /*
     * The network. `open` gives a handle >= 0, or a negative number. `send` and `receive` give the number of bytes,
     * 0 at the end (of `receive`), GH_NET_TIMEOUT, or another negative number.
     */
    int (*net_open)(void *self, const char *host, uint16_t port, uint32_t timeout_ms);
    int (*net_send)(void *self, int handle, const uint8_t *data, size_t length);
    int (*net_receive)(void *self, int handle, uint8_t *data, size_t length, uint32_t timeout_ms);
    void (*net_close)(void *self, int handle);
};

#define GH_NET_TIMEOUT (-2)

#endif
