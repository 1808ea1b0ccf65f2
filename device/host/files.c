#define _POSIX_C_SOURCE 200809L

#include "files.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "gatehouse/crypto.h"
#include "sockets.h"

#define SECTOR 4096u

/* Opens a file of the device's; -1 when it is not there, or can't be made. */
static int open_file(const struct host *host, const char *name, unsigned number, int flags)
{
    char path[300];

    snprintf(path, sizeof path, "%s/%s%u", host->directory, name, number);
    return open(path, flags, 0600);
}

static int write_at(struct host *host, const char *name, unsigned number, off_t offset, const uint8_t *data, size_t length)
{
    int file = open_file(host, name, number, O_WRONLY | O_CREAT), good;
    int fails = host->writes_left == 0;

    if (host->writes_left > 0)
        host->writes_left--;
    if (file < 0)
        return -1;
    if (fails)
        length /= 2;
    good = pwrite(file, data, length, offset) == (ssize_t)length;
    close(file);
    if (fails)
        _exit(HOST_NO_POWER);
    return good ? 0 : -1;
}

static int read_at(const struct host *host, const char *name, unsigned number, off_t offset, uint8_t *data, size_t length)
{
    int file = open_file(host, name, number, O_RDONLY), good;

    if (file < 0)
        return -1;
    good = pread(file, data, length, offset) == (ssize_t)length;
    close(file);
    return good ? 0 : -1;
}

/* Boot selection: two records like ESP-IDF's otadata. 0 `GHBT`, 4 sequence, 8 active slot, 9 and 10 states, 16 digest. */
#define RECORD 48

struct selection {
    uint32_t sequence;
    uint8_t active, states[GH_SLOTS];
};

static int digest_of(const uint8_t *record, uint8_t digest[GH_DIGEST])
{
    struct gh_sha256 hash;

    gh_sha256_start(&hash);
    gh_sha256_add(&hash, record, 16);
    return gh_sha256_end(&hash, digest);
}

/* The newest whole record; 0, or -1 when there is none. */
static int read_selection(const struct host *host, struct selection *out)
{
    uint8_t record[RECORD], digest[GH_DIGEST];
    int found = -1;
    unsigned i;

    out->sequence = 0;
    for (i = 0; i < 2; i++) {
        uint32_t sequence;

        if (read_at(host, "boot", i, 0, record, sizeof record) != 0 || memcmp(record, "GHBT", 4) != 0 ||
            digest_of(record, digest) != 0 || memcmp(digest, record + 16, sizeof digest) != 0)
            continue;
        memcpy(&sequence, record + 4, sizeof sequence);
        if (sequence > out->sequence) {
            out->sequence = sequence;
            out->active = record[8];
            memcpy(out->states, record + 9, sizeof out->states);
            found = 0;
        }
    }
    return found;
}

/* Over the older record: the power may fail in between. */
static int write_selection(struct host *host, struct selection *selection)
{
    uint8_t record[RECORD] = "GHBT";

    selection->sequence++;
    memcpy(record + 4, &selection->sequence, sizeof selection->sequence);
    record[8] = selection->active;
    memcpy(record + 9, selection->states, sizeof selection->states);
    if (digest_of(record, record + 16) != 0)
        return -1;
    return write_at(host, "boot", selection->sequence % 2, 0, record, sizeof record);
}

int host_boot(struct host *host)
{
    struct selection selection;

    if (read_selection(host, &selection) != 0)
        return -1;
    if (selection.states[selection.active] == GH_BOOT_NEW) {
        selection.states[selection.active] = GH_BOOT_TRYING;
        if (write_selection(host, &selection) != 0)
            return -1;
    } else if (selection.states[selection.active] == GH_BOOT_TRYING) {
        selection.states[selection.active] = GH_BOOT_FAILED;
        selection.active ^= 1;
        if (write_selection(host, &selection) != 0)
            return -1;
    }
    host->running = selection.active;
    return selection.active;
}

int host_flash(struct host *host, const char *image)
{
    struct selection selection = { 0, 0, { GH_BOOT_VALID, GH_BOOT_NONE } };
    uint8_t data[SECTOR];
    off_t at = 0;
    ssize_t count;
    int file = open(image, O_RDONLY);

    if (file < 0)
        return -1;
    while ((count = read(file, data, sizeof data)) > 0) {
        if (write_at(host, "slot", 0, at, data, (size_t)count) != 0)
            break;
        at += count;
    }
    close(file);
    return count == 0 ? write_selection(host, &selection) : -1;
}

static uint32_t slot_size(void *self, unsigned slot)
{
    (void)slot;
    return ((struct host *)self)->slot_size;
}

static int slot_erase(void *self, unsigned slot, uint32_t size)
{
    uint8_t empty[SECTOR];
    uint32_t at;

    memset(empty, 0xff, sizeof empty);
    for (at = 0; at < size; at += SECTOR)
        if (write_at(self, "slot", slot, at, empty, sizeof empty) != 0)
            return -1;
    return 0;
}

static int slot_write(void *self, unsigned slot, uint32_t offset, const uint8_t *data, size_t length)
{
    return write_at(self, "slot", slot, offset, data, length);
}

static int slot_read(void *self, unsigned slot, uint32_t offset, uint8_t *data, size_t length)
{
    return read_at(self, "slot", slot, offset, data, length);
}

static int state_read(void *self, unsigned copy, uint8_t *data, size_t length)
{
    return read_at(self, "state", copy, 0, data, length);
}

static int state_write(void *self, unsigned copy, const uint8_t *data, size_t length)
{
    return write_at(self, "state", copy, 0, data, length);
}

static unsigned boot_running(void *self)
{
    return ((struct host *)self)->running;
}

static enum gh_boot boot_state(void *self, unsigned slot)
{
    struct selection selection;

    return read_selection(self, &selection) == 0 ? (enum gh_boot)selection.states[slot] : GH_BOOT_NONE;
}

static int change(struct host *host, unsigned slot, enum gh_boot state, unsigned active)
{
    struct selection selection;

    if (read_selection(host, &selection) != 0)
        return -1;
    selection.states[slot] = (uint8_t)state;
    selection.active = (uint8_t)active;
    return write_selection(host, &selection);
}

static int boot_try(void *self, unsigned slot)
{
    return change(self, slot, GH_BOOT_NEW, slot);
}

static int boot_confirm(void *self)
{
    struct host *host = self;

    return change(host, host->running, GH_BOOT_VALID, host->running);
}

static int boot_revert(void *self)
{
    struct host *host = self;

    return change(host, host->running, GH_BOOT_FAILED, host->running ^ 1);
}

static int boot_forget(void *self, unsigned slot)
{
    struct host *host = self;

    return change(host, slot, GH_BOOT_NONE, host->running);
}

static uint64_t now(void *self)
{
    const struct host *host = self;

    if (host->clock_is_unknown)
        return 0;
    return host->fixed_time > 0 ? host->fixed_time : (uint64_t)time(NULL);
}

static uint32_t ticks(void *self)
{
    struct timespec moment;

    clock_gettime(CLOCK_MONOTONIC, &moment);
    return (uint32_t)((uint64_t)moment.tv_sec * 1000 + (uint64_t)moment.tv_nsec / 1000000) +
           ((struct host *)self)->slept_ms;
}

static void sleep_ms(void *self, uint32_t milliseconds)
{
    struct host *host = self;
    struct timespec span = { (time_t)(milliseconds / 1000), (long)(milliseconds % 1000) * 1000000 };

    if (host->in_a_hurry)
        host->slept_ms += milliseconds;
    else
        nanosleep(&span, NULL);
}

void host_port(struct host *host, struct gh_port *port)
{
    const struct gh_port made = {
        host, slot_size, slot_erase, slot_write, slot_read, state_read, state_write, boot_running, boot_state,
        boot_try, boot_confirm, boot_revert, boot_forget, now, ticks, sleep_ms, socket_open, socket_send,
        socket_receive, socket_close,
    };

    *port = made;
}
