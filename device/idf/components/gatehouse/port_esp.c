#include "port_esp.h"

#include <string.h>
#include <time.h>

#include <esp_flash_partitions.h>
#include <esp_ota_ops.h>
#include <esp_partition.h>
#include <esp_timer.h>
#include <freertos/FreeRTOS.h>
#include <freertos/task.h>
#include <nvs.h>

#include "sockets.h"

#define SECTOR 4096u
#define EARLIEST 1735689600 /* 2025-01-01: a clock that shows less was never set */

static const esp_partition_t *slot_of(unsigned slot)
{
    return esp_partition_find_first(
        ESP_PARTITION_TYPE_APP, slot == 0 ? ESP_PARTITION_SUBTYPE_APP_OTA_0 : ESP_PARTITION_SUBTYPE_APP_OTA_1, NULL);
}

static uint32_t slot_size(void *self, unsigned slot)
{
    const esp_partition_t *partition = slot_of(slot);

    (void)self;
    return partition != NULL ? partition->size : 0;
}

static int slot_erase(void *self, unsigned slot, uint32_t size)
{
    const esp_partition_t *partition = slot_of(slot);

    (void)self;
    if (partition == NULL || partition == esp_ota_get_running_partition() || size > partition->size)
        return -1;
    return esp_partition_erase_range(partition, 0, (size + SECTOR - 1) / SECTOR * SECTOR) == ESP_OK ? 0 : -1;
}

static int slot_write(void *self, unsigned slot, uint32_t offset, const uint8_t *data, size_t length)
{
    const esp_partition_t *partition = slot_of(slot);
    size_t whole = length / 16 * 16;
    uint8_t last[16];

    (void)self;
    if (partition == NULL || partition == esp_ota_get_running_partition())
        return -1;
    if (whole > 0 && esp_partition_write(partition, offset, data, whole) != ESP_OK)
        return -1;
    if (whole == length)
        return 0;
    /* flash encryption writes 16 bytes at a time */
    memset(last, 0xff, sizeof last);
    memcpy(last, data + whole, length - whole);
    return esp_partition_write(partition, offset + whole, last, sizeof last) == ESP_OK ? 0 : -1;
}

static int slot_read(void *self, unsigned slot, uint32_t offset, uint8_t *data, size_t length)
{
    const esp_partition_t *partition = slot_of(slot);

    (void)self;
    return partition != NULL && esp_partition_read(partition, offset, data, length) == ESP_OK ? 0 : -1;
}

static int state_read(void *self, unsigned copy, uint8_t *data, size_t length)
{
    nvs_handle_t storage;
    size_t found = length;
    int good;

    (void)self;
    if (nvs_open("gatehouse", NVS_READONLY, &storage) != ESP_OK)
        return -1;
    good = nvs_get_blob(storage, copy == 0 ? "state0" : "state1", data, &found) == ESP_OK && found == length;
    nvs_close(storage);
    return good ? 0 : -1;
}

static int state_write(void *self, unsigned copy, const uint8_t *data, size_t length)
{
    nvs_handle_t storage;
    int good;

    (void)self;
    if (nvs_open("gatehouse", NVS_READWRITE, &storage) != ESP_OK)
        return -1;
    good = nvs_set_blob(storage, copy == 0 ? "state0" : "state1", data, length) == ESP_OK &&
           nvs_commit(storage) == ESP_OK;
    nvs_close(storage);
    return good ? 0 : -1;
}

static unsigned boot_running(void *self)
{
    (void)self;
    return esp_ota_get_running_partition() == slot_of(1) ? 1 : 0;
}

static enum gh_boot boot_state(void *self, unsigned slot)
{
    const esp_partition_t *partition = slot_of(slot);
    esp_ota_img_states_t state;

    (void)self;
    if (partition == NULL || esp_ota_get_state_partition(partition, &state) != ESP_OK)
        return GH_BOOT_NONE;
    switch (state) {
    case ESP_OTA_IMG_NEW:
        return GH_BOOT_NEW;
    case ESP_OTA_IMG_PENDING_VERIFY:
        return GH_BOOT_TRYING;
    case ESP_OTA_IMG_INVALID:
    case ESP_OTA_IMG_ABORTED:
        return GH_BOOT_FAILED;
    default:
        return GH_BOOT_VALID;
    }
}

static int boot_try(void *self, unsigned slot)
{
    (void)self;
    /* checks the image first, with secure boot its signature as well */
    return esp_ota_set_boot_partition(slot_of(slot)) == ESP_OK ? 0 : -1;
}

static int boot_confirm(void *self)
{
    (void)self;
    return esp_ota_mark_app_valid_cancel_rollback() == ESP_OK ? 0 : -1;
}

static int boot_revert(void *self)
{
    (void)self;
    esp_ota_mark_app_invalid_rollback_and_reboot(); /* returns only when there is nothing to go back to */
    return -1;
}

/* Erases the sector of otadata that names the slot: each of its two sectors has one entry. */
static int boot_forget(void *self, unsigned slot)
{
    const esp_partition_t *data =
        esp_partition_find_first(ESP_PARTITION_TYPE_DATA, ESP_PARTITION_SUBTYPE_DATA_OTA, NULL);
    esp_ota_select_entry_t entry;
    unsigned sector;

    (void)self;
    if (data == NULL)
        return -1;
    for (sector = 0; sector < 2; sector++) {
        if (esp_partition_read(data, sector * SECTOR, &entry, sizeof entry) != ESP_OK)
            return -1;
        if (entry.ota_seq != UINT32_MAX && (entry.ota_seq - 1) % GH_SLOTS == slot &&
            esp_partition_erase_range(data, sector * SECTOR, SECTOR) != ESP_OK)
            return -1;
    }
    return 0;
}

static uint64_t now(void *self)
{
    time_t shown = time(NULL);

    (void)self;
    return shown < EARLIEST ? 0 : (uint64_t)shown;
}

static uint32_t ticks(void *self)
{
    (void)self;
    return (uint32_t)(esp_timer_get_time() / 1000);
}

static void sleep_ms(void *self, uint32_t milliseconds)
{
    (void)self;
    vTaskDelay(pdMS_TO_TICKS(milliseconds));
}

void esp_port(struct gh_port *port)
{
    const struct gh_port made = {
        NULL, slot_size, slot_erase, slot_write, slot_read, state_read, state_write, boot_running, boot_state,
        boot_try, boot_confirm, boot_revert, boot_forget, now, ticks, sleep_ms, socket_open, socket_send,
        socket_receive, socket_close,
    };

    *port = made;
}
