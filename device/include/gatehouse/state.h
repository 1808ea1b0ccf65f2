/* What the library keeps over restarts: 708 bytes in two copies, of which the newest whole one counts. */
#ifndef GATEHOUSE_STATE_H
#define GATEHOUSE_STATE_H

#include "gatehouse/manifest.h"
#include "gatehouse/port.h"

#define GH_STATE 708

struct gh_state {
    uint32_t sequence;
    struct gh_standing standing;
    uint8_t has_pending, pending_slot; /* an image that was written and has not proved itself yet */
    uint8_t pending[GH_MANIFEST];      /* its manifest */
    uint32_t failed_counter;           /* the release that failed here last, and when it was issued */
    uint64_t failed_issued;
};

/* Reads it; without a whole copy it is that of a new device with these keys (128 bytes). */
void gh_state_load(struct gh_state *state, const struct gh_port *port, const uint8_t *keys);

/* Writes it over the older copy, and reads it back: GH_OK or GH_FLASH. Then the one before is still there. */
enum gh_result gh_state_save(struct gh_state *state, const struct gh_port *port);

#endif
