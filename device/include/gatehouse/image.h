/* The beginning of an ESP-IDF application image: esp_image_header_t, a segment's header, esp_app_desc_t. */
#ifndef GATEHOUSE_IMAGE_H
#define GATEHOUSE_IMAGE_H

#include <stddef.h>
#include <stdint.h>

#include "gatehouse/result.h"

#define GH_IMAGE_HEAD 288

/* Whether the first bytes are of an application for that chip that calls itself that version: GH_OK, GH_WRONG_IMAGE. */
enum gh_result gh_image_check(const uint8_t *data, size_t length, uint16_t chip, const char *version);

#endif
