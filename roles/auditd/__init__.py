"""auditd: what people do as root, and who changes accounts, logins, units, the kit's own files, the log or the time.

The kernel records it by rules, with the login that it all began with, and auditd keeps it beside the journal. The rules
are locked: nobody changes or removes one before the next start. Containers have the kernel of the machine underneath:
there this role only configures, and nothing is started.
"""

from gatehouse.site import Service

# No `units`: in a container auditd never runs, and the check `host.audit` asks for it where it does.
service = Service(name="auditd", title="Audit records (auditd)", packages=("auditd",))

UNIT = "auditd.service"
# Debian 13 has the rules loaded by a unit of its own.
LOADER = "audit-rules.service"
FOLDER = "/etc/audit"
CONFIGURATION = f"{FOLDER}/auditd.conf"
RULES = f"{FOLDER}/rules.d/50-gatehouse.rules"
LOGS = "/var/log/audit"
MEGABYTES, FILES = 8, 8
"""Of one file of the log, and how many there are: a memory card has room for both."""
