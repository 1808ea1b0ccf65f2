#include "identity.h"

#include <stdio.h>
#include <string.h>

#include <nvs.h>
#include <nvs_flash.h>

#define PARTITION "gatehouse"

static int get_text(nvs_handle_t storage, const char *key, char *text, size_t size)
{
    return nvs_get_str(storage, key, text, &size) == ESP_OK ? 0 : -1;
}

static int get_bytes(nvs_handle_t storage, const char *key, uint8_t *bytes, size_t size)
{
    size_t found = size;

    return nvs_get_blob(storage, key, bytes, &found) == ESP_OK && found == size ? 0 : -1;
}

int identity_read(struct identity *identity)
{
    nvs_handle_t storage;
    uint32_t number = 0;
    const char *domain;
    int failed;

    if (nvs_flash_init_partition(PARTITION) != ESP_OK ||
        nvs_open_from_partition(PARTITION, "gatehouse", NVS_READONLY, &storage) != ESP_OK)
        return -1;
    failed = get_text(storage, "name", identity->name, sizeof identity->name) |
             get_text(storage, "broker_host", identity->broker_host, sizeof identity->broker_host) |
             get_text(storage, "ca", identity->ca, sizeof identity->ca) |
             get_text(storage, "certificate", identity->certificate, sizeof identity->certificate) |
             get_text(storage, "key", identity->key, sizeof identity->key) |
             get_bytes(storage, "pin", identity->pins[0], GH_DIGEST) |
             get_bytes(storage, "pin_backup", identity->pins[1], GH_DIGEST) |
             get_bytes(storage, "hmac_key", identity->hmac_key, sizeof identity->hmac_key) |
             get_bytes(storage, "firmware_key_1", identity->firmware_keys, GH_KEY) |
             get_bytes(storage, "firmware_key_2", identity->firmware_keys + GH_KEY, GH_KEY);
    if (nvs_get_u16(storage, "broker_port", &identity->broker_port) != ESP_OK ||
        nvs_get_u32(storage, "hmac_key_number", &number) != ESP_OK)
        failed = -1;
    nvs_close(storage);
    identity->hmac_key_number = (uint16_t)number;
    /* both are names below the site's domain */
    domain = strchr(identity->broker_host, '.');
    if (failed != 0 || domain == NULL)
        return -1;
    snprintf(identity->update_host, sizeof identity->update_host, "updates%.100s", domain);
    snprintf(identity->update_server, sizeof identity->update_server, "https://%s/", identity->update_host);
    return 0;
}
