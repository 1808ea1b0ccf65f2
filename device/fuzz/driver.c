/*
 * Runs a fuzzer without libFuzzer: inputs that come from a seed on standard input by small changes, a given number of
 * them, the same ones in every run. What libFuzzer finds in hours this does not; it finds what breaks at once.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static uint64_t state = 0x9e3779b97f4a7c15u;

static uint32_t below(uint32_t limit)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (uint32_t)(state >> 32) % limit;
}

int main(int count, char **arguments)
{
    static uint8_t seed[8192], changed[8192];
    size_t size = fread(seed, 1, sizeof seed, stdin);
    long left = count > 1 ? strtol(arguments[1], NULL, 10) : 0;

    LLVMFuzzerTestOneInput(seed, size);
    for (; left > 0; left--) {
        size_t length = size;
        uint32_t changes = below(4);

        memcpy(changed, seed, size);
        if (below(4) == 0)
            length = below((uint32_t)size + 1);
        for (; changes > 0 && length > 0; changes--)
            changed[below((uint32_t)length)] = below(2) ? (uint8_t)below(256) : (uint8_t)("\0\xff \r\n:0-"[below(9)]);
        LLVMFuzzerTestOneInput(changed, length);
    }
    return 0;
}
