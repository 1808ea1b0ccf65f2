/*
 * The update client. A device calls, in this order:
 *
 *   gh_update_begin         once after each start: what the boot loader did is brought together with what is known
 *   gh_update_prove         when that says GH_TRYING: the new image has 30 seconds to reach its broker, or is reverted
 *   gh_update_check         from time to time: fetches the manifest, and the image if there is one to be taken
 *   restart                 when that says GH_INSTALLED
 *
 * Nothing here allocates; one struct gh_update is all the memory it needs beside the stack and mbedTLS.
 */
#ifndef GATEHOUSE_UPDATE_H
#define GATEHOUSE_UPDATE_H

#include "gatehouse/http.h"
#include "gatehouse/image.h"
#include "gatehouse/manifest.h"
#include "gatehouse/port.h"
#include "gatehouse/state.h"
#include "gatehouse/stream.h"

#define GH_BLOCK 1024            /* bytes that are written to a slot at once */
#define GH_PROVE_MS 30000        /* for a new image to reach its broker */
#define GH_SLOWEST 1024          /* bytes a second: a server that is slower is given up on */
#define GH_PATIENCE_MS 30000     /* on top of that, for a request */
#define GH_ATTEMPTS 5            /* to get an image, each going on where the one before ended */

struct gh_update {
    const struct gh_port *port;
    const struct gh_device *device;
    struct gh_state state;
    uint64_t latest; /* what the clock has shown in this run: it never counts as going back */
    uint8_t manifest[GH_MANIFEST];
    uint8_t block[GH_BLOCK];
    struct gh_sha256 hash;
    struct gh_http http;
};

/* GH_OK, or GH_TRYING, GH_CONFIRMED, GH_REVERTED, GH_INSTALLED (restart), GH_FLASH. The structs must outlive `update`. */
enum gh_result gh_update_begin(
    struct gh_update *update, const struct gh_port *port, const struct gh_device *device);

/*
 * Tries to prove a new image: `reach` connects to the broker, within the time given, and gives GH_OK; it is called again
 * until it does, for GH_PROVE_MS. Then GH_CONFIRMED: the counter is raised, and the keys of the release are those that count. Otherwise
 * GH_REVERTED: restart. A watchdog must end an image that hangs; the boot loader does the rest.
 */
enum gh_result gh_update_prove(
    struct gh_update *update, enum gh_result (*reach)(void *context, uint32_t within_ms), void *context);

/*
 * Fetches https://HOST/MODEL/manifest over the stream, and installs the first release that the device takes.
 * GH_INSTALLED, or why there is none: GH_UP_TO_DATE and GH_NOT_ITS_TURN are as they should be; the others are to be
 * reported.
 */
enum gh_result gh_update_check(struct gh_update *update, const struct gh_stream *stream);

#endif
