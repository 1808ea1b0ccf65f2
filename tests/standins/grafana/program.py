#!/usr/bin/python3
"""STAND-IN for /usr/share/grafana/bin/grafana: `server` and `cli admin reset-admin-password`."""

from __future__ import annotations

import argparse
import configparser
import hashlib
import hmac
import http.cookies
import json
import re
import secrets
import sqlite3
import sys
import time
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

sys.dont_write_bytecode = True

import pages  # noqa: E402
import source  # noqa: E402
import yaml  # noqa: E402

DEFAULTS = """
[server]
http_addr =
http_port = 3000
[paths]
data = /var/lib/grafana
provisioning = /etc/grafana/provisioning
[security]
admin_user = admin
admin_password = admin
secret_key = SW2YcwTIb9zpOOhoPsMm
cookie_secure = false
cookie_samesite = lax
disable_gravatar = false
[users]
allow_sign_up = false
[auth.anonymous]
enabled = false
[auth.basic]
enabled = true
[metrics]
enabled = true
[analytics]
feedback_links_enabled = true
[plugins]
plugin_admin_enabled = true
"""
TABLES = """
create table if not exists user (id integer primary key, login text unique, password text, salt text, is_admin integer);
create table if not exists session (token text primary key, login text);
create table if not exists login_attempt (login text, at real);
"""
WRONG_AT_MOST, WINDOW = 5, 300


def expanded(text):
    """`$__file{PATH}` is what is in that file."""
    return re.sub(r"\$__file\{([^}]+)\}", lambda found: Path(found[1]).read_text().strip(), text)


class Settings:
    """The defaults, and what a file says instead."""

    def __init__(self, path):
        self._found = configparser.ConfigParser(interpolation=None, strict=False)
        self._found.read_string(DEFAULTS)
        self._found.read_string(Path(path).read_text())

    def __call__(self, section, name):
        return expanded(self._found[section][name].strip())

    def on(self, section, name):
        return self(section, name) == "true"


class Store:
    """Its own database: who may log in, with what, and who is logged in."""

    def __init__(self, settings):
        self._path = Path(settings("paths", "data")) / "grafana.db"
        with closing(self.open()) as db, db:
            db.executescript(TABLES)
            if not db.execute("select 1 from user").fetchone():
                self._add(db, settings("security", "admin_user"), settings("security", "admin_password"), True)

    def open(self):
        return sqlite3.connect(self._path, timeout=2)

    @staticmethod
    def _hash(password, salt):
        return hashlib.pbkdf2_hmac("sha256", password.encode(), salt.encode(), 10_000, 50).hex()

    def _add(self, db, login, password, administers):
        salt = secrets.token_hex(5)
        row = (login, self._hash(password, salt), salt, administers)
        db.execute("insert into user (login, password, salt, is_admin) values (?, ?, ?, ?)", row)

    def add(self, login, password):
        with closing(self.open()) as db, db:
            self._add(db, login, password, False)

    def reset(self, password):
        with closing(self.open()) as db, db:
            (salt,) = db.execute("select salt from user where id = 1").fetchone()
            db.execute("update user set password = ? where id = 1", (self._hash(password, salt),))

    def log_in(self, login, password):
        """A session's token; None for a wrong login, and for any where too many wrong ones were tried lately."""
        with closing(self.open()) as db, db:
            asked = (login, time.time() - WINDOW)
            (wrong,) = db.execute("select count(*) from login_attempt where login = ? and at > ?", asked).fetchone()
            found = db.execute("select password, salt from user where login = ?", (login,)).fetchone()
            if wrong >= WRONG_AT_MOST or not found or not hmac.compare_digest(found[0], self._hash(password, found[1])):
                db.execute("insert into login_attempt values (?, ?)", (login, time.time()))
                return None
            db.execute("delete from login_attempt where login = ?", (login,))
            token = secrets.token_hex(16)
            db.execute("insert into session values (?, ?)", (hashlib.sha256(token.encode()).hexdigest(), login))
            return token

    def who(self, token):
        with closing(self.open()) as db:
            query = "select login, is_admin from user natural join session where token = ?"
            return db.execute(query, (hashlib.sha256(token.encode()).hexdigest(),)).fetchone()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "STAND-IN"
    settings = store = sources = None

    def log_message(self, *_):
        pass

    def do_GET(self):
        self.answer("GET")

    def do_POST(self):
        self.answer("POST")

    def answer(self, method):
        text = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.more = {}
        try:
            given = json.loads(text) if text else {}
            status, said = self.route(method, urlsplit(self.path).path, given)
        except ValueError:
            status, said = 400, {"message": "bad request data"}
        except sqlite3.Error as error:
            status, said = 500, {"message": f"Internal server error: {error}"}
        is_page = isinstance(said, str)
        body = said.encode() if is_page else json.dumps(said).encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/html; charset=UTF-8" if is_page else "application/json")
        self.send_header("X-Stand-In", "this is not Grafana")
        self.send_header("X-Content-Type-Options", "nosniff")
        for name, value in self.more.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def who(self):
        """Login and whether that is the administrator; None for nobody."""
        cookie = http.cookies.SimpleCookie(self.headers.get("Cookie", "")).get("grafana_session")
        if cookie and (found := self.store.who(cookie.value)):
            return found
        return ("", False) if self.settings.on("auth.anonymous", "enabled") else None

    def route(self, method, path, given):
        open_to_all = {"/api/health": self.health, "/login": self.login, "/api/user/signup": self.sign_up}
        open_to_all |= {"/metrics": self.metrics}
        if path in open_to_all:
            return open_to_all[path](method, given)
        who = self.who()
        if who is None and path.startswith("/api/"):
            return 401, {"message": "Unauthorized"}
        if who is None:
            self.more["Location"] = "/login"
            return 302, pages.login()
        if path == "/api/user":
            local = self.settings.on("security", "disable_gravatar")
            avatar = "/public/img/user_profile.png" if local else "/avatar/0123456789abcdef"
            said = {"id": 1, "login": who[0], "isGrafanaAdmin": bool(who[1]), "avatarUrl": avatar}
            return (200, said) if who[0] else (401, {"message": "Unauthorized"})
        if path == "/api/frontend/settings":
            return 200, self.frontend()
        if path == "/api/admin/users" and method == "POST":
            return self.add_user(who, given)
        if path == "/api/datasources":
            return 200, [kept.public() for kept in self.sources.values()]
        if path == "/api/ds/query":
            return 200, source.answers(self.sources, given)
        boards = pages.boards(self.settings("paths", "provisioning"))
        if path == "/api/search":
            return 200, [{"uid": uid, "title": board["title"], "type": "dash-db"} for uid, board in boards.items()]
        uid = path.rpartition("/")[2] or "fleet"
        if path.startswith("/api/dashboards/uid/") and uid in boards:
            return 200, {"dashboard": boards[uid], "meta": {"provisioned": True}}
        if (path == "/" or path.startswith("/d/")) and uid in boards:
            return 200, pages.dashboard(boards, uid, self.sources)
        return 404, {"message": "Not found"}

    def health(self, *_):
        try:
            with closing(self.store.open()) as db:
                db.execute("select 1 from user").fetchone()
        except sqlite3.Error:
            return 503, {"database": "failing", "version": "9.4.0-standin", "commit": "STAND-IN"}
        return 200, {"database": "ok", "version": "9.4.0-standin", "commit": "STAND-IN"}

    def login(self, method, given):
        if method == "GET":
            return 200, pages.login()
        token = self.store.log_in(str(given.get("user")), str(given.get("password")))
        if token is None:
            return 401, {"message": "Invalid username or password"}
        secure = "; Secure" * self.settings.on("security", "cookie_secure")
        same = self.settings("security", "cookie_samesite").capitalize()
        self.more["Set-Cookie"] = f"grafana_session={token}; Path=/; HttpOnly; SameSite={same}{secure}"
        return 200, {"message": "Logged in"}

    def sign_up(self, method, _given):
        if self.settings.on("users", "allow_sign_up"):
            return 200, {"status": "SignUpCreated"}
        return 401, {"message": "User signup is disabled"}

    def metrics(self, *_):
        if self.settings.on("metrics", "enabled"):
            return 200, "grafana_build_info 1\n"
        return 404, {"message": "Not found"}

    def frontend(self):
        said = self.settings
        return {
            "buildInfo": {"version": "9.4.0-standin", "commit": "STAND-IN"},
            "feedbackLinksEnabled": said.on("analytics", "feedback_links_enabled"),
            "pluginAdminEnabled": said.on("plugins", "plugin_admin_enabled"),
            "disableUserSignUp": not said.on("users", "allow_sign_up"),
        }

    def add_user(self, who, given):
        if not who[1]:
            return 403, {"message": "Permission denied"}
        self.store.add(given["login"], given["password"])
        return 200, {"id": 2, "message": "User created"}


def serve(settings):
    Handler.settings, Handler.store = settings, Store(settings)
    Handler.sources = {
        entry["uid"]: source.Source(entry, expanded)
        for path in sorted((Path(settings("paths", "provisioning")) / "datasources").glob("*.yaml"))
        for entry in yaml.safe_load(path.read_text())["datasources"]
    }
    server = ThreadingHTTPServer((settings("server", "http_addr"), int(settings("server", "http_port"))), Handler)
    print("STAND-IN: this is not Grafana", file=sys.stderr, flush=True)
    server.serve_forever()


def main():
    parser = argparse.ArgumentParser(prog="grafana", description=__doc__)
    parser.add_argument("command", choices=["server", "cli"])
    parser.add_argument("--config", required=True)
    parser.add_argument("--homepath")
    parser.add_argument("--packaging")
    parser.add_argument("words", nargs="*")
    parser.add_argument("--password-from-stdin", action="store_true")
    asked = parser.parse_intermixed_args()
    settings = Settings(asked.config)
    if asked.command == "server":
        serve(settings)
    if asked.words[:2] != ["admin", "reset-admin-password"]:
        parser.error("only `admin reset-admin-password`")
    password = sys.stdin.readline().rstrip("\n") if asked.password_from_stdin else asked.words[2]
    if len(password) < 4:
        sys.exit("Error: ✗ new password is too short")
    try:
        Store(settings).reset(password)
    except sqlite3.Error as error:
        sys.exit(f"Error: ✗ failed to update user password: {error}")
    print("\nAdmin password changed successfully ✔")


if __name__ == "__main__":
    main()
