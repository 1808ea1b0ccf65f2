/* A device in memory, whose server's answers are given beforehand: for vectors, fuzzing and measuring. */
#ifndef GATEHOUSE_HOST_MEMORY_H
#define GATEHOUSE_HOST_MEMORY_H

#include "gatehouse/port.h"
#include "gatehouse/state.h"
#include "gatehouse/stream.h"

struct memory {
    uint8_t *slots[GH_SLOTS];
    uint32_t slot_size;
    uint8_t states[2][GH_STATE];
    int has_state[2];
    unsigned running;
    enum gh_boot boots[GH_SLOTS];
    uint64_t now;
    uint32_t ticks;
    /* what the server answers, connection by connection; the last one is an end without a byte */
    const uint8_t *answers[2];
    size_t lengths[2];
    unsigned connection;
    size_t at;
};

void memory_port(struct memory *memory, struct gh_port *port);
void memory_stream(struct memory *memory, struct gh_stream *stream);

#endif
