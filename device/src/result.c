#include "gatehouse/result.h"

static const char *const words[GH_RESULTS] = {
    "ok", "no-manifest", "unknown-key", "bad-signature", "wrong-model", "wrong-device", "wrong-format", "wrong-chip",
    "rolled-back", "no-time", "expired", "up-to-date", "too-far", "needs-earlier", "too-large", "wrong-place",
    "not-its-turn", "failed-before", "wrong-image", "wrong-length", "too-slow", "no-answer", "bad-answer",
    "not-found", "not-trusted", "bad-identity", "refused", "flash", "bad-argument", "installed", "trying",
    "confirmed", "reverted",
};

const char *gh_word(enum gh_result result)
{
    return (unsigned)result < GH_RESULTS ? words[result] : "unknown";
}
