/* What `invoke bundle --nvs` put into the partition `gatehouse`: who this device is. */
#ifndef IDENTITY_H
#define IDENTITY_H

#include "gatehouse/manifest.h"
#include "gatehouse/message.h"
#include "gatehouse/tls.h"

struct identity {
    char name[64];
    char broker_host[128], update_server[144], update_host[128];
    uint16_t broker_port;
    char ca[2048], certificate[3072], key[512];
    uint8_t pins[2][GH_DIGEST], firmware_keys[2 * GH_KEY], hmac_key[32];
    uint16_t hmac_key_number;
};

/* 0, or -1 when something of it is missing. */
int identity_read(struct identity *identity);

#endif
