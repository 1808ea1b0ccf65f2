#include "gatehouse/update.h"

#include <string.h>

static unsigned other(unsigned slot)
{
    return slot == 0 ? 1 : 0;
}

static uint64_t now(struct gh_update *update)
{
    uint64_t shown = update->port->now(update->port->self);

    if (shown > update->latest)
        update->latest = shown;
    return update->latest;
}

/* Whether a slot holds what a manifest says, read from the flash itself. */
static enum gh_result compare(struct gh_update *update, unsigned slot, const struct gh_manifest *manifest)
{
    const struct gh_port *port = update->port;
    uint8_t digest[GH_DIGEST];
    uint32_t at;

    gh_sha256_start(&update->hash);
    for (at = 0; at < manifest->size;) {
        uint32_t some = manifest->size - at < GH_BLOCK ? manifest->size - at : GH_BLOCK;

        if (port->slot_read(port->self, slot, at, update->block, some) != 0) {
            gh_sha256_end(&update->hash, digest);
            return GH_FLASH;
        }
        gh_sha256_add(&update->hash, update->block, some);
        at += some;
    }
    if (gh_sha256_end(&update->hash, digest) != 0 || !gh_equal(digest, manifest->sha256, sizeof digest))
        return GH_WRONG_IMAGE;
    return GH_OK;
}

/* No image is pending any more. One that has failed is not tried again unless it is signed again. */
static enum gh_result forget(struct gh_update *update, int has_failed)
{
    struct gh_manifest manifest;

    update->state.has_pending = 0;
    if (has_failed && gh_manifest_read(update->state.pending, &manifest) == GH_OK) {
        update->state.failed_counter = manifest.counter;
        update->state.failed_issued = manifest.issued;
    }
    return gh_state_save(&update->state, update->port);
}

/* The new image has proved itself and the boot loader stays with it: from now on nothing older counts. */
static enum gh_result raise(struct gh_update *update)
{
    struct gh_standing *standing = &update->state.standing;
    struct gh_manifest manifest;

    if (!update->state.has_pending) /* flashed by cable: nothing to be raised */
        return GH_OK;
    if (gh_manifest_read(update->state.pending, &manifest) != GH_OK)
        return forget(update, 0);
    /* new keys end what a stolen one may have done to the clock: their release's own time counts, even if it is less */
    if (memcmp(standing->keys, manifest.keys, sizeof standing->keys) != 0 || manifest.issued > standing->floor)
        standing->floor = manifest.issued;
    if (manifest.counter > standing->counter)
        standing->counter = manifest.counter;
    memcpy(standing->keys, manifest.keys, sizeof standing->keys);
    update->state.has_pending = 0;
    return gh_state_save(&update->state, update->port);
}

static enum gh_result revert(struct gh_update *update)
{
    /* the boot loader first: if the power fails in between, the next start finds the slot failed and notes it */
    if (update->port->boot_revert(update->port->self) != 0)
        return GH_FLASH;
    return forget(update, 1) == GH_OK ? GH_REVERTED : GH_FLASH;
}

enum gh_result gh_update_begin(struct gh_update *update, const struct gh_port *port, const struct gh_device *device)
{
    struct gh_manifest manifest;
    unsigned running;
    enum gh_boot boot;

    memset(update, 0, sizeof *update);
    update->port = port;
    update->device = device;
    gh_state_load(&update->state, port, device->keys);
    running = port->boot_running(port->self);
    if (!update->state.has_pending) {
        /* so that no failure of an earlier image is taken for one of the next */
        if (port->boot_state(port->self, other(running)) == GH_BOOT_FAILED &&
            port->boot_forget(port->self, other(running)) != 0)
            return GH_FLASH;
        return port->boot_state(port->self, running) == GH_BOOT_TRYING ? GH_TRYING : GH_OK;
    }
    boot = port->boot_state(port->self, update->state.pending_slot);
    if (running == update->state.pending_slot) {
        if (boot == GH_BOOT_VALID) /* the power failed between the boot loader's note and this one */
            return raise(update) == GH_OK ? GH_CONFIRMED : GH_FLASH;
        /* what was written is compared once more: it may have been exchanged since */
        if (gh_manifest_read(update->state.pending, &manifest) != GH_OK ||
            compare(update, running, &manifest) != GH_OK)
            return revert(update);
        return GH_TRYING;
    }
    if (boot == GH_BOOT_NEW)
        return GH_INSTALLED;
    if (boot != GH_BOOT_FAILED) /* the boot loader was never told of it */
        return forget(update, 0);
    if (forget(update, 1) != GH_OK || port->boot_forget(port->self, other(running)) != 0)
        return GH_FLASH;
    return GH_REVERTED;
}

enum gh_result gh_update_prove(
    struct gh_update *update, enum gh_result (*reach)(void *context, uint32_t within_ms), void *context)
{
    const struct gh_port *port = update->port;
    uint32_t started = port->ticks(port->self), spent = 0;

    do {
        if (reach(context, GH_PROVE_MS - spent) == GH_OK) {
            /* the boot loader first: were it the counter, a loss of power would leave the old image with the new counter */
            if (port->boot_confirm(port->self) != 0)
                return GH_FLASH;
            return raise(update) == GH_OK ? GH_CONFIRMED : GH_FLASH;
        }
        port->sleep_ms(port->self, 500);
        spent = port->ticks(port->self) - started;
    } while (spent < GH_PROVE_MS);
    return revert(update);
}

/* `HOST` or `HOST:PORT` of the device's server, for the request. */
static int host_of(const struct gh_device *device, char *host, size_t size)
{
    const char *start = device->server + sizeof "https://" - 1;
    size_t length = strlen(device->server);

    if (length < sizeof "https://" || device->server[length - 1] != '/' || length - sizeof "https://" >= size)
        return -1;
    length -= sizeof "https://";
    memcpy(host, start, length);
    host[length] = '\0';
    return 0;
}

/* Reads the manifests that the server shows; GH_OK when one is to be taken, which then is in update->manifest. */
static enum gh_result choose(struct gh_update *update, const struct gh_stream *stream, struct gh_manifest *manifest)
{
    const struct gh_device *device = update->device;
    unsigned idle = other(update->port->boot_running(update->port->self));
    uint32_t slot_size = update->port->slot_size(update->port->self, idle);
    enum gh_result result, first = GH_NO_MANIFEST;
    char host[112], path[48];
    size_t got;
    int count;

    if (host_of(device, host, sizeof host) != 0 || strlen(device->model) > 31)
        return GH_BAD_ARGUMENT;
    strcpy(path, "/");
    strcat(path, device->model);
    strcat(path, "/manifest");
    result = gh_http_get(&update->http, stream, update->port, host, path, 0, GH_PATIENCE_MS);
    if (result != GH_OK)
        return result;
    if (update->http.left == 0 || update->http.left % GH_MANIFEST != 0 ||
        update->http.left > GH_MANIFESTS * GH_MANIFEST)
        return GH_NO_MANIFEST;
    for (count = 0; update->http.left > 0; count++) {
        result = gh_http_read(&update->http, update->manifest, GH_MANIFEST, &got);
        if (result != GH_OK)
            return result;
        result = gh_manifest_judge(
            update->manifest, device, &update->state.standing, now(update), slot_size, manifest);
        if (result == GH_OK && manifest->counter == update->state.failed_counter &&
            manifest->issued <= update->state.failed_issued)
            result = GH_FAILED_BEFORE;
        if (result == GH_OK)
            return GH_OK;
        if (count == 0)
            first = result;
    }
    return first;
}

/* Writes one block, hashed as it goes. */
static enum gh_result store(
    struct gh_update *update, unsigned slot, uint32_t at, size_t length, const struct gh_manifest *manifest)
{
    if (at == 0 && manifest->format == GH_FORMAT_ESP &&
        gh_image_check(update->block, length, manifest->chip, manifest->version) != GH_OK)
        return GH_WRONG_IMAGE;
    gh_sha256_add(&update->hash, update->block, length);
    return update->port->slot_write(update->port->self, slot, at, update->block, length) == 0 ? GH_OK : GH_FLASH;
}

/* Streams an image into a slot, over several connections if need be. */
static enum gh_result fetch(
    struct gh_update *update, const struct gh_stream *stream, unsigned slot, const struct gh_manifest *manifest)
{
    const char *path = manifest->url + strlen(update->device->server) - 1;
    uint32_t at = 0, patience = GH_PATIENCE_MS + manifest->size / GH_SLOWEST * 1000;
    uint32_t started = update->port->ticks(update->port->self);
    size_t filled = 0; /* of the block, by a connection that ended in the middle of it */
    enum gh_result result = GH_NO_ANSWER;
    char host[112];
    int attempt;

    if (host_of(update->device, host, sizeof host) != 0)
        return GH_BAD_ARGUMENT;
    if (update->port->slot_erase(update->port->self, slot, manifest->size) != 0)
        return GH_FLASH;
    for (attempt = 0; attempt < GH_ATTEMPTS; attempt++) {
        uint32_t spent;

        if (attempt > 0)
            update->port->sleep_ms(update->port->self, 1000);
        spent = update->port->ticks(update->port->self) - started;
        if (spent >= patience)
            return GH_TOO_SLOW;
        result = stream->open(stream->self);
        if (result == GH_OK)
            result = gh_http_get(
                &update->http, stream, update->port, host, path, at + (uint32_t)filled, patience - spent);
        if (result == GH_OK && update->http.left != manifest->size - at - filled)
            result = GH_WRONG_LENGTH;
        while (result == GH_OK && at < manifest->size) {
            size_t wanted = manifest->size - at < GH_BLOCK ? manifest->size - at : GH_BLOCK, got;

            result = gh_http_read(&update->http, update->block + filled, wanted - filled, &got);
            filled += got;
            if (result == GH_OK) {
                result = store(update, slot, at, filled, manifest);
                at += (uint32_t)filled;
                filled = 0;
            }
        }
        stream->close(stream->self);
        if (result != GH_NO_ANSWER)
            return result;
    }
    return result;
}

/* GH_OK once the slot holds the image and the next start tries it. */
static enum gh_result install(
    struct gh_update *update, const struct gh_stream *stream, unsigned slot, const struct gh_manifest *manifest)
{
    const struct gh_port *port = update->port;
    uint8_t digest[GH_DIGEST];
    enum gh_result result;
    int hashed;

    gh_sha256_start(&update->hash);
    result = fetch(update, stream, slot, manifest);
    hashed = gh_sha256_end(&update->hash, digest);
    if (result != GH_OK)
        return result;
    if (hashed != 0 || !gh_equal(digest, manifest->sha256, sizeof digest))
        return GH_WRONG_IMAGE;
    /* what came is right; whether the flash kept it, only the flash can tell */
    result = compare(update, slot, manifest);
    if (result != GH_OK)
        return result == GH_WRONG_IMAGE ? GH_FLASH : result;
    memcpy(update->state.pending, update->manifest, GH_MANIFEST);
    update->state.has_pending = 1;
    update->state.pending_slot = (uint8_t)slot;
    result = gh_state_save(&update->state, port);
    if (result != GH_OK)
        return result;
    return port->boot_try(port->self, slot) == 0 ? GH_OK : GH_FLASH;
}

enum gh_result gh_update_check(struct gh_update *update, const struct gh_stream *stream)
{
    unsigned running = update->port->boot_running(update->port->self);
    struct gh_manifest manifest;
    enum gh_result result;

    if (update->state.has_pending) /* the running image has to prove itself first, or a restart is due */
        return GH_BAD_ARGUMENT;
    result = stream->open(stream->self);
    if (result != GH_OK)
        return result;
    result = choose(update, stream, &manifest);
    stream->close(stream->self);
    if (result != GH_OK)
        return result;
    result = install(update, stream, other(running), &manifest);
    if (result != GH_OK)
        update->state.has_pending = 0;
    return result == GH_OK ? GH_INSTALLED : result;
}
