/*
 * What an update costs in memory: a release is judged, fetched, compared and tried, on a stack that was painted before.
 * Prints NAME NUMBER a line, in bytes. Linked against mbedTLS's archive with --wrap, so that what it allocates is counted.
 */
#define _POSIX_C_SOURCE 200809L

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gatehouse/message.h"
#include "gatehouse/tls.h"
#include "gatehouse/update.h"
#include "memory.h"
#include "release.h"

#define STACK (256 * 1024)
#define PAINT 0xa5

void *__real_calloc(size_t count, size_t size);
void __real_free(void *at);
void *__wrap_calloc(size_t count, size_t size);
void __wrap_free(void *at);

static size_t held, most;

/* The size is kept in front, in 16 bytes so that what follows is aligned. */
void *__wrap_calloc(size_t count, size_t size)
{
    uint8_t *at = __real_calloc(1, count * size + 16);

    if (at == NULL)
        return NULL;
    memcpy(at, &(size_t){ count * size }, sizeof(size_t));
    held += count * size;
    if (held > most)
        most = held;
    return at + 16;
}

void __wrap_free(void *at)
{
    size_t size;

    if (at == NULL)
        return;
    memcpy(&size, (uint8_t *)at - 16, sizeof size);
    held -= size;
    __real_free((uint8_t *)at - 16);
}

static struct gh_update update;
static uint8_t slot[65536], stack[STACK] __attribute__((aligned(4096)));
static enum gh_result result;

static void *install(void *context)
{
    static const char head[] = "HTTP/1.1 200 OK\r\nContent-Length: 512\r\n\r\n";
    static const char image_head[] = "HTTP/1.1 200 OK\r\nContent-Length: 9000\r\n\r\n";
    static uint8_t first[sizeof head - 1 + sizeof release], second[sizeof image_head - 1 + 9000];
    static const struct gh_device device = {
        "kitchen-01", "esp32-sht31", "https://updates.home.arpa/", release_keys, GH_ANY_CHIP, GH_FORMAT_RAW,
    };
    struct memory *memory = context;
    struct gh_port port;
    struct gh_stream stream;
    size_t at;

    memcpy(first, head, sizeof head - 1);
    memcpy(first + sizeof head - 1, release, sizeof release);
    memcpy(second, image_head, sizeof image_head - 1);
    for (at = 0; at < 9000; at += 9)
        memcpy(second + sizeof image_head - 1 + at, "firmware ", 9);
    memory->slots[1] = slot;
    memory->slot_size = sizeof slot;
    memory->boots[0] = GH_BOOT_VALID;
    memory->now = 1790000000;
    memory->answers[0] = first;
    memory->lengths[0] = sizeof first;
    memory->answers[1] = second;
    memory->lengths[1] = sizeof second;
    memory_port(memory, &port);
    memory_stream(memory, &stream);
    gh_update_begin(&update, &port, &device);
    result = gh_update_check(&update, &stream);
    return NULL;
}

static void *sign(void *context)
{
    static uint8_t message[512];
    static const uint8_t key[32] = { 1 };
    const struct gh_signer signer = { key, 1 };
    size_t length;

    (void)context;
    result = gh_message_sign(
        &signer, "devices/kitchen-01/telemetry/climate", 1, 1, message, sizeof message, 100, &length);
    return NULL;
}

static void *nothing(void *context)
{
    return context;
}

/* The bytes of stack that a function touches, with what it calls. */
static size_t depth_of(void *(*work)(void *context), void *context)
{
    pthread_attr_t attributes;
    pthread_t thread;
    size_t untouched = 0;

    memset(stack, PAINT, sizeof stack);
    if (pthread_attr_init(&attributes) != 0 || pthread_attr_setstack(&attributes, stack, sizeof stack) != 0 ||
        pthread_create(&thread, &attributes, work, context) != 0 || pthread_join(thread, NULL) != 0)
        exit(2);
    pthread_attr_destroy(&attributes);
    while (untouched < sizeof stack && stack[untouched] == PAINT)
        untouched++;
    return sizeof stack - untouched;
}

int main(void)
{
    static struct memory memory;
    size_t base = depth_of(nothing, NULL), deep;

    most = held;
    deep = depth_of(install, &memory);
    if (result != GH_INSTALLED)
        return 1;
    printf("update_stack %zu\nupdate_heap_of_mbedtls %zu\n", deep - base, most);
    most = held;
    deep = depth_of(sign, NULL);
    if (result != GH_OK)
        return 1;
    printf("sign_stack %zu\nsign_heap_of_mbedtls %zu\n", deep - base, most - held);
    printf("update_struct %zu\ntls_struct %zu\n", sizeof update, sizeof(struct gh_tls));
    return 0;
}
