"""The tasks of `./kit`, by the names that they are called by; each is in the module of its topic in commands/."""

from __future__ import annotations

import gc

from invoke import Collection

from commands import (
    alerts,
    ca,
    credentials,
    data,
    devices,
    firmware,
    incident,
    labs,
    message,
    network,
    proof,
    report,
    sabotage,
    sites,
    testing,
    vault,
)

# Ten thousand devices are many objects that all stay: to look for garbage among them again and again takes a tenth of
# a command's time.
gc.set_threshold(100_000, 20, 100)

namespace = Collection(
    credentials.credentials,
    credentials.rotate,
    devices.bundle,
    devices.devices,
    devices.enroll,
    devices.quarantine,
    devices.release,
    devices.renew,
    devices.revoke,
    proof.audit,
    proof.drift,
    proof.integrity,
    proof.refused,
    proof.sbom,
    proof.threat_model,
    proof.verify,
    proof.vulnerabilities,
    sabotage.sabotage,
    sites.harden,
    sites.init,
    sites.plan,
    sites.trust,
    testing.test,
    Collection("acme", credentials.acme_key),
    Collection("alerts", alerts.show, alerts.password),
    Collection("ca", ca.drop, ca.move_to_backup_key, ca.rollover, ca.status),
    Collection("data", data.backup, data.erase, data.restore),
    Collection(
        "firmware",
        firmware.keys,
        firmware.sign,
        firmware.show,
        firmware.publish,
        firmware.rollout,
        firmware.withdraw,
        firmware.published,
        firmware.status,
        firmware.harden,
        firmware.check_config,
        firmware.fuses,
    ),
    Collection("incident", incident.start, incident.open_evidence),
    Collection("message", message.sign, message.verify),
    Collection("lab", labs.up, labs.down, labs.status, labs.shell, labs.save, labs.restore),
    Collection("mud", network.mud_import),
    Collection("report", report.key, report.sign, report.verify),
    Collection("token", credentials.token_issue, credentials.token_rotate),
    Collection("wireguard", network.wireguard_peer, network.wireguard_remove),
    Collection(
        "vault", vault.show, vault.add_recipient, vault.remove_recipient, vault.rekey, vault.backup, vault.restore
    ),
)
