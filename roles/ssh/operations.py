"""The steps of a change of SSH that are more than files: the account, the host key, and what contradicts the role."""

from __future__ import annotations

import shlex
from collections.abc import Generator

from pyinfra import host
from pyinfra.api import StringCommand, operation

from roles.differences import differs
from roles.ssh.facts import LISTENS, MODULI, NEVER, SMALLEST_MODULUS, SshHost

SHELL = "/bin/bash"

# Judges the staged drop-in as part of the configuration that sshd will read: every setting of it must hold there, for
# the administrator and for root, or another file (a Match block, an additional Port) takes it away.
ACCEPTED_BY_SSHD = """
new=$STAGED{own} && all=$STAGED/preview && mkdir -p $all/sshd_config.d /run/sshd &&
{{ cp /etc/ssh/sshd_config.d/*.conf $all/sshd_config.d/ 2>/dev/null || true; }} && cp $new $all/sshd_config.d/ &&
sed "s|/etc/ssh/sshd_config.d/|$all/sshd_config.d/|" /etc/ssh/sshd_config >$all/sshd_config &&
/usr/sbin/sshd -t -f $all/sshd_config &&
awk '!/^#/ && NF {{ print tolower($1) " " }}' $new | sort -u >$all/settings &&
for user in {user} root; do
  for file in $new $all/sshd_config; do
    /usr/sbin/sshd -T -f $file -C user=$user,host=localhost,addr=127.0.0.1 >$all/effective || exit 1
    grep -F -f $all/settings $all/effective | sort >$file.$user
  done
  diff $new.$user $all/sshd_config.$user >&2 ||
    {{ echo "gatehouse: another file in /etc/ssh changes these settings for $user: remove them there" >&2; exit 1; }}
done
""".strip()


def prepared(user: str, host_key: str, own: str) -> Generator[StringCommand, None, None]:
    """The administrator's account without a password, an Ed25519 host key, no port or address set in other files."""
    state = host.get_fact(SshHost, user=user, host_key=host_key, own=own)
    host.connector_data["gatehouse_ssh_clear"] = state.clear
    name = shlex.quote(user)
    for kind, what, how, wrong in (
        ("account", user, "missing", not state.exists),
        ("account", user, "a password of it may be used", state.exists and not state.locked),
        ("account", user, "its password grows old, and that locks out its keys too", state.ages),
        ("account", user, f"shell {state.shell}, not {SHELL}", state.exists and state.shell != SHELL),
        ("file", host_key, "missing, or without its public half", not state.host_key),
        ("unit", "ssh.socket", "active, shall be stopped", state.socket),
        *(("file", file, "sets a port or an address of sshd", True) for file in state.elsewhere),
    ):
        if wrong:
            differs(host.connector_data, kind, what, how)
    if not state.exists:
        # An asterisk, not an exclamation mark: no password fits, but the account is not locked for keys.
        never = f"-K PASS_MIN_DAYS=0 -K PASS_MAX_DAYS={NEVER}"
        yield StringCommand(f"useradd --create-home --user-group --shell {SHELL} --password '*' {never} -- {name}")
    elif not state.locked or state.shell != SHELL:
        yield StringCommand(f"usermod --password '*' --shell {SHELL} -- {name}")
    if state.ages:
        yield StringCommand(f"chage --mindays 0 --maxdays {NEVER} -- {name}")
    if not state.host_key:
        yield StringCommand(f"rm -f {host_key} {host_key}.pub; ssh-keygen -q -t ed25519 -N '' -C '' -f {host_key}")
    for file in state.elsewhere:
        yield StringCommand(f"sed -i -E 's/{LISTENS}/# set by Gatehouse: &/I' {shlex.quote(file)}")
    if state.socket:
        yield StringCommand("systemctl disable --now ssh.socket; systemctl enable --now ssh.service")


@operation()
def cleared(user: str, host_key: str, own: str) -> Generator[StringCommand, None, None]:
    """Removes host keys that sshd no longer uses, short Diffie-Hellman groups, and former administrators' keys."""
    if host.connector_data.get("gatehouse_ssh_clear"):
        return
    state = host.get_fact(SshHost, user=user, host_key=host_key, own=own)
    for path in state.weak_keys:
        differs(host.connector_data, "file", path, "a host key that shall not be")
    for path in state.others:
        differs(host.connector_data, "file", path, "lets somebody in whom the site does not name")
    if state.weak_moduli:
        differs(host.connector_data, "file", MODULI, "has short Diffie-Hellman groups")
    if state.weak_keys or state.others:
        yield StringCommand(f"rm -f -- {shlex.join([*state.weak_keys, *state.others])}")
    if state.weak_moduli:
        yield StringCommand(
            f"awk '/^#/ || $5 >= {SMALLEST_MODULUS}' {MODULI} >{MODULI}.gatehouse-new"
            f" && chmod 0644 {MODULI}.gatehouse-new && mv {MODULI}.gatehouse-new {MODULI}"
        )
