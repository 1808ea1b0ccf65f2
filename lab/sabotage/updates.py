"""Sabotages of the update server, and of the firmware that lies on it."""

from __future__ import annotations

from lab.sabotage.model import Sabotage

_APART = ("no-front",)

# What was published is no deploy's: a copy brings it back.
_KEEP = "kept=$(ls $FIRMWARE/*/{what} | head -1); cp -p $kept $kept.before\n"
_BACK = 'for kept in $FIRMWARE/*/*.before; do [ ! -e "$kept" ] || mv -f "$kept" "${kept%.before}"; done'

# Signs a manifest anew, some of its bytes changed: RESIGN FILE KEY PLACE HEX…
_RESIGN = """
import subprocess, sys
path, key, *changes = sys.argv[1:]
data = bytearray(open(path, "rb").read(512))
for place, new in zip(changes[::2], changes[1::2]):
    data[int(place) : int(place) + len(new) // 2] = bytes.fromhex(new)
sign = ["openssl", "dgst", "-sha256", "-sign", key]
made = subprocess.run(sign, input=b"gatehouse firmware 1\\0" + data[:448], capture_output=True, check=True).stdout
size = made[3]
halves = made[4 : 4 + size], made[6 + size : 6 + size + made[5 + size]]
data[448:] = b"".join(half.lstrip(b"\\0").rjust(32, b"\\0") for half in halves)
open(path, "wb").write(data)
"""
_WITH_KEY = f"""
    umask 077
    mkdir -p /run/sabotage-key
    trap 'rm -rf /run/sabotage-key' EXIT
    {{make}}
    {_KEEP.format(what="manifest")}
    python3 -I - $kept /run/sabotage-key/key {{changes}} <<'X'
{_RESIGN}X
    chmod 0644 $kept
"""

SABOTAGES = (
    Sabotage(
        name="updates-without-certificate",
        title="The update server asks for no certificate",
        breaks="updates updates.conf 's/ssl_verify_client on;/ssl_verify_client optional;/'",
        catches=("updates.mutual-tls",),
        apart_from=_APART,
    ),
    Sabotage(
        name="updates-for-any-authority",
        title="The update server takes certificates of whatever authority",
        breaks="updates updates.conf 's/ssl_verify_client on;/ssl_verify_client optional_no_ca;/'",
        catches=("updates.mutual-tls",),
        apart_from=_APART,
    ),
    Sabotage(
        name="updates-listed",
        title="The update server lists what it has",
        breaks=r"""
            edit $WEB/updates/updates.conf 's/"~\^\(.*1;/"~^([a-z0-9][a-z0-9._-]*):\/(\\1\/.*)?$" 1;/'
            edit $WEB/updates/updates.conf 's/autoindex off/autoindex on/'
            updates updates.conf 's/try_files .*/try_files $uri $uri\/ =404;/'
        """,
        catches=("updates.no-listing",),
        apart_from=_APART,
    ),
    Sabotage(
        name="updates-of-all-models",
        title="The update server gives each device the firmware of all models",
        breaks=r"""updates updates.conf 's/"~\^\(.*1;/"~^[a-z0-9._-]+:\/[a-z0-9._-]+\/[A-Za-z0-9._+-]+$" 1;/'""",
        catches=("updates.own-model",),
        apart_from=_APART,
    ),
    Sabotage(
        name="updates-for-a-revoked-device",
        title="The update server was not told that a device is revoked",
        breaks="""
            printf '"CN=gatehouse-probe-1-last-1 %s" "gatehouse-probe";\\n' "$last_revoked" >>$WEB/updates/models.map
            systemctl restart nginx.service
        """,
        catches=("updates.unknown", "updates.devices"),
        apart_from=_APART,
    ),
    Sabotage(
        name="updates-of-a-wrong-model",
        title="The update server has a device down as one of another model",
        breaks=r"""
            if grep -q '^"CN=pump-' $WEB/updates/models.map; then
                edit $WEB/updates/models.map 's/^("CN=pump-.*) ".*";/\1 "another-model";/'
            else
                echo '"CN=pump-02 4711" "another-model";' >>$WEB/updates/models.map
            fi
            systemctl restart nginx.service
        """,
        catches=("updates.devices",),
        apart_from=_APART,
    ),
    Sabotage(
        name="updates-list-not-read",
        title="A newer list of devices lies on the gateway, and the update server was never told",
        breaks="printf '\\n' >>$WEB/updates/models.map",
        catches=("updates.devices",),
        # whatever restarts nginx has it read the list
        apart_from=("no-front", "front-*", "updates-*", "*hook*", "*challenge*", "key-for-root-alone"),
    ),
    Sabotage(
        name="image-flipped-by-a-byte",
        title="One byte of a published image was changed",
        breaks=f"""
            {_KEEP.format(what="*.bin")}
            printf '!' | dd of=$kept bs=1 seek=1000 conv=notrunc status=none
            ! cmp -s $kept $kept.before
        """,
        catches=("updates.images",),
        ends=_BACK,
    ),
    Sabotage(
        name="manifest-by-another-key",
        title="A published manifest is signed by a key that no device trusts",
        breaks=_WITH_KEY.format(
            make="openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out /run/sabotage-key/key", changes=""
        ),
        catches=("updates.manifests",),
        ends=_BACK,
    ),
    Sabotage(
        name="manifest-expired",
        title="A published manifest is signed as it must be, and has expired",
        # issued and expired on the first two days of 2024
        breaks=_WITH_KEY.format(
            make="cat >/run/sabotage-key/key", changes="24 00000000659200800000000065935200"
        ),
        reads="firmware/keys/1/key",
        catches=("updates.manifests",),
        ends=_BACK,
    ),
    Sabotage(
        name="manifest-with-a-lower-counter",
        title="The counter of a published manifest was lowered, and nothing signed again",
        breaks=f"""
            {_KEEP.format(what="manifest")}
            printf '\\001' | dd of=$kept bs=1 seek=11 conv=notrunc status=none
            ! cmp -s $kept $kept.before
        """,
        catches=("updates.manifests",),
        ends=_BACK,
    ),
)  # fmt: skip
