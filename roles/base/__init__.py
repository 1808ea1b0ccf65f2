"""What the other roles stand on: Debian itself, its accounts and logins, and the kit's own tools on the gateway."""

from gatehouse.site import Service

service = Service(
    name="base", title="Debian and the kit's tools", packages=("libpam-passwdqc", "python3-minimal", "sudo")
)

# login.defs(5): what an account gets that somebody makes, now or later. Of the administrator's the role `ssh` takes the
# ageing away: who logs in with a key is never to be locked out by a password that has grown old. UMASK stays: Debian 13
# holds every session to it, those of apt, cron and this kit as well, whose files services must be able to read.
NEW_ACCOUNTS = {
    "PASS_MAX_DAYS": "365",
    "PASS_MIN_DAYS": "1",
    "PASS_WARN_AGE": "14",
    "HOME_MODE": "0700",
    # Of the programs that hash without PAM; what goes through PAM is yescrypt in Debian.
    "SHA_CRYPT_MIN_ROUNDS": "100000",
    "SHA_CRYPT_MAX_ROUNDS": "100000",
}

# passwdqc.conf(5): the fewest characters, by how many kinds of them a password has: of one kind none will do, of two
# 24, of a passphrase 15, of three and four kinds 12 (OWASP ISVS 2.1.5).
SHORTEST_PASSWORDS = "min=disabled,24,15,12,12"

# pam-auth-update(8): the profiles that put these modules into PAM. Who guesses a password five times waits a quarter
# of an hour; root at the console does not, nor does who shows a key: sshd asks PAM about the account alone, where they
# refuse nobody, and the count is forgotten (pam_faillock(8)). No password of the last 24 comes back.
GUARDS = {
    "first": "requisite pam_faillock.so preauth deny=5 unlock_time=900",
    "fails": "[default=die] pam_faillock.so authfail deny=5 unlock_time=900",
    "resets": "optional pam_faillock.so",
    "remembers": "requisite pam_pwhistory.so remember=24 enforce_for_root",
}
PROFILES = ("gatehouse-faillock", "gatehouse-faillock-first", "gatehouse-pwhistory")
# As they then stand in PAM's files; passwdqc has asked for the new password before.
GUARDED = (
    f"auth {GUARDS['first']}",
    f"auth {GUARDS['fails']}",
    f"account {GUARDS['resets']}",
    f"password {GUARDS['remembers']} use_authtok",
)

# Debian lets everybody read when root's work is done, and how sshd is set up. Octal modes; what is missing is left so.
FOR_ROOT_ALONE = {
    "/etc/crontab": 0o600,
    "/etc/cron.d": 0o700,
    "/etc/cron.hourly": 0o700,
    "/etc/cron.daily": 0o700,
    "/etc/cron.weekly": 0o700,
    "/etc/cron.monthly": 0o700,
    "/etc/ssh/sshd_config": 0o600,
}
