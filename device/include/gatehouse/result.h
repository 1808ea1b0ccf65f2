/* What comes of a call. The first ones are the reasons of gatehouse/updates/judgement.py, under the same words. */
#ifndef GATEHOUSE_RESULT_H
#define GATEHOUSE_RESULT_H

enum gh_result {
    GH_OK = 0,
    /* a manifest that is not taken, in the order in which it is judged */
    GH_NO_MANIFEST,
    GH_UNKNOWN_KEY,
    GH_BAD_SIGNATURE,
    GH_WRONG_MODEL,
    GH_WRONG_DEVICE,
    GH_WRONG_FORMAT,
    GH_WRONG_CHIP,
    GH_ROLLED_BACK,
    GH_NO_TIME,
    GH_EXPIRED,
    GH_UP_TO_DATE,
    GH_TOO_FAR,
    GH_NEEDS_EARLIER,
    GH_TOO_LARGE,
    GH_WRONG_PLACE,
    GH_NOT_ITS_TURN,
    /* an update that is not finished */
    GH_FAILED_BEFORE, /* this very release was tried here and did not prove itself */
    GH_WRONG_IMAGE,   /* other bytes than the manifest says, or no image for this chip */
    GH_WRONG_LENGTH,  /* the server offers more or fewer bytes */
    GH_TOO_SLOW,
    GH_NO_ANSWER, /* no connection, or one that ended early */
    GH_BAD_ANSWER, /* an answer that is no HTTP, or one that is not understood on purpose, such as a redirection */
    GH_NOT_FOUND,
    GH_NOT_TRUSTED, /* the server's certificate is not by the CA, not for its name, or its key is not pinned */
    GH_BAD_IDENTITY, /* the device's own certificate, key or CA can't be read */
    GH_REFUSED,      /* the broker does not let the device in, or does not take what it publishes */
    GH_FLASH,        /* the flash does not take or keep what is written */
    GH_BAD_ARGUMENT,
    /* where a device stands after a start */
    GH_INSTALLED, /* restart: the next start runs the new image for the first time */
    GH_TRYING,    /* it is the first start of a new image, which has to prove itself */
    GH_CONFIRMED, /* the new image has proved itself */
    GH_REVERTED,  /* a new image did not prove itself, and the one before it runs again */
    GH_RESULTS
};

/* The word for it, such as "bad-signature"; never NULL. */
const char *gh_word(enum gh_result result);

#endif
