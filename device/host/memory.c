#include "memory.h"

#include <string.h>

static uint32_t slot_size(void *self, unsigned slot)
{
    (void)slot;
    return ((struct memory *)self)->slot_size;
}

static int slot_erase(void *self, unsigned slot, uint32_t size)
{
    struct memory *memory = self;

    if (size > memory->slot_size || memory->slots[slot] == NULL)
        return size > memory->slot_size;
    memset(memory->slots[slot], 0xff, size);
    return 0;
}

static int slot_write(void *self, unsigned slot, uint32_t offset, const uint8_t *data, size_t length)
{
    struct memory *memory = self;

    if (memory->slots[slot] == NULL || offset > memory->slot_size || length > memory->slot_size - offset)
        return -1;
    memcpy(memory->slots[slot] + offset, data, length);
    return 0;
}

static int slot_read(void *self, unsigned slot, uint32_t offset, uint8_t *data, size_t length)
{
    struct memory *memory = self;

    if (memory->slots[slot] == NULL || offset > memory->slot_size || length > memory->slot_size - offset)
        return -1;
    memcpy(data, memory->slots[slot] + offset, length);
    return 0;
}

static int state_read(void *self, unsigned copy, uint8_t *data, size_t length)
{
    struct memory *memory = self;

    if (!memory->has_state[copy])
        return -1;
    memcpy(data, memory->states[copy], length);
    return 0;
}

static int state_write(void *self, unsigned copy, const uint8_t *data, size_t length)
{
    struct memory *memory = self;

    memcpy(memory->states[copy], data, length);
    memory->has_state[copy] = 1;
    return 0;
}

static unsigned boot_running(void *self)
{
    return ((struct memory *)self)->running;
}

static enum gh_boot boot_state(void *self, unsigned slot)
{
    return ((struct memory *)self)->boots[slot];
}

static int boot_try(void *self, unsigned slot)
{
    ((struct memory *)self)->boots[slot] = GH_BOOT_NEW;
    return 0;
}

static int boot_confirm(void *self)
{
    struct memory *memory = self;

    memory->boots[memory->running] = GH_BOOT_VALID;
    return 0;
}

static int boot_revert(void *self)
{
    struct memory *memory = self;

    memory->boots[memory->running] = GH_BOOT_FAILED;
    return 0;
}

static int boot_forget(void *self, unsigned slot)
{
    ((struct memory *)self)->boots[slot] = GH_BOOT_NONE;
    return 0;
}

static uint64_t now(void *self)
{
    return ((struct memory *)self)->now;
}

static uint32_t ticks(void *self)
{
    return ((struct memory *)self)->ticks;
}

static void sleep_ms(void *self, uint32_t milliseconds)
{
    ((struct memory *)self)->ticks += milliseconds;
}

void memory_port(struct memory *memory, struct gh_port *port)
{
    const struct gh_port made = {
        memory, slot_size, slot_erase, slot_write, slot_read, state_read, state_write, boot_running, boot_state,
        boot_try, boot_confirm, boot_revert, boot_forget, now, ticks, sleep_ms, NULL, NULL, NULL, NULL,
    };

    *port = made;
}

static enum gh_result open_answer(void *self)
{
    struct memory *memory = self;

    memory->connection++;
    memory->at = 0;
    return GH_OK;
}

static enum gh_result write_nothing(void *self, const uint8_t *data, size_t length)
{
    (void)self;
    (void)data;
    (void)length;
    return GH_OK;
}

static int read_answer(void *self, uint8_t *data, size_t length, uint32_t timeout_ms)
{
    struct memory *memory = self;
    unsigned index = memory->connection - 1;
    size_t left = index < 2 ? memory->lengths[index] - memory->at : 0;

    (void)timeout_ms;
    if (length > left)
        length = left;
    if (length > 0)
        memcpy(data, memory->answers[index] + memory->at, length);
    memory->at += length;
    return (int)length;
}

static void close_nothing(void *self)
{
    (void)self;
}

void memory_stream(struct memory *memory, struct gh_stream *stream)
{
    const struct gh_stream made = { memory, open_answer, write_nothing, read_answer, close_nothing };

    *stream = made;
}
