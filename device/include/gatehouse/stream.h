/* A connection, whatever carries it: TLS on a device, plain TCP nowhere but in tests. */
#ifndef GATEHOUSE_STREAM_H
#define GATEHOUSE_STREAM_H

#include <stddef.h>
#include <stdint.h>

#include "gatehouse/result.h"

struct gh_stream {
    void *self;
    /* Connects, or connects anew. */
    enum gh_result (*open)(void *self);
    /* All of it, or an error. */
    enum gh_result (*write)(void *self, const uint8_t *data, size_t length);
    /* Number of bytes, 0 at the end, -GH_TOO_SLOW after timeout_ms without any, or minus another result. */
    int (*read)(void *self, uint8_t *data, size_t length, uint32_t timeout_ms);
    void (*close)(void *self);
};

#endif
