"""Sabotages of the message intake: what it takes, and whether it is there."""

from __future__ import annotations

from lab.sabotage.model import Sabotage

SABOTAGES = (
    Sabotage(
        name="no-intake",
        title="The intake is stopped",
        breaks="systemctl stop gatehouse-intake.service",
        catches=("host.runs-intake", "intake.stores"),
        may={"intake.refuses-*": "their own success is gone"},
        apart_from=("*-messages", "forged-signatures", "taken-unsigned"),
    ),
    Sabotage(
        name="forged-signatures",
        title="The intake takes every signature for good",
        breaks="intake $MESSAGES/forms.py 's/if not hmac.compare_digest.*/if False:/'",
        catches=("intake.refuses-{tampered,of-another,moved}",),
    ),
    Sabotage(
        name="taken-unsigned",
        title="The intake takes JSON that nobody has signed",
        breaks="""
            edit $MESSAGES/forms.py 's/if not json_form:/if False:/'
            edit $MESSAGES/forms.py 's/if not matching:/matching = [1]; fields["timestamp"] = when = 1e-3 * __import__("time").time_ns() \\/\\/ 10**3; when \\/= 10**3\\n    if False:/'
            systemctl restart gatehouse-intake.service
        """,
        catches=("intake.refuses-unsigned",),
    ),
    Sabotage(
        name="replayed-messages",
        title="The intake does not remember what it has seen",
        breaks="intake $MESSAGES/replay.py 's/elif not window.is_new.*/elif False:/'",
        catches=("intake.refuses-{replayed,number-used-twice}",),
    ),
    Sabotage(
        name="ageless-messages",
        title="The intake takes messages of any age, and from the future",
        breaks="intake /etc/gatehouse/intake/intake.toml 's/^max_(age|ahead) = .*/max_\\1 = 99999999/'",
        catches=("intake.refuses-{old,early}",),
    ),
    Sabotage(
        name="endless-messages",
        title="The intake takes messages of any size, and looks at topics only when it must",
        breaks="""
            edit $MESSAGES/forms.py 's/if len\\(data\\) > LARGEST:/if False:/'
            intake $MESSAGES/topics.py 's/^_TOPIC = .*/_TOPIC = re.compile(r"devices\\/([a-z0-9-]+)\\/telemetry\\/(\\\\w+).*")/'
        """,
        catches=("intake.refuses-{oversize,wrong-topic}",),
        may={"intake.refuses-*": "another reason is counted"},
    ),
)
