"""The gateway and the simulated provider as processes, and how to ask them things.

Not the rows, and not the judge. Both listen on free ports, in a folder of their own, and end with
this process: they are in its process group, and are stopped when it ends in order.
"""

import json
import os
import pathlib
import re
import subprocess
import urllib.error
import urllib.request

ADMIN_TOKEN = "matrix-admin-token"


class Refused(Exception):
    """A reply that is no success."""


def ask(method, url, body=None, headers=None):
    """One request; gives the reply's JSON."""
    sent = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data=sent, method=method, headers=headers or {})
    request.add_header("content-type", "application/json")
    try:
        with urllib.request.urlopen(request, timeout=30) as reply:
            text = reply.read()
    except urllib.error.HTTPError as error:
        raise Refused(f"{method} {url}: {error.code} {error.read().decode()}") from error
    return json.loads(text) if text else None


class Process:
    """A program that says on standard output where it listens."""

    def __init__(self, arguments, log):
        # Settings of the shell that started us are not the matrix's.
        env = {name: text for name, text in os.environ.items() if not name.startswith("ANIMA_")}
        self.log = log.open("wb")
        self.child = subprocess.Popen(
            arguments, env=env, stdout=subprocess.PIPE, stderr=self.log, text=True)
        line = self.child.stdout.readline()
        found = re.search(r"(http://[^/\s]+)", line)
        if not found:
            self.stop()
            raise SystemExit(f"{' '.join(arguments)}: {line}{log.read_text()}")
        self.origin = found[1]

    def stop(self):
        self.child.terminate()
        self.child.wait()
        self.log.close()


class Provider(Process):
    """The simulated provider and its truth log."""

    def __init__(self, program, folder):
        super().__init__([program, "simulate", "--listen", "127.0.0.1:0"], folder / "provider.log")

    def calls(self, after):
        """The calls with a higher number."""
        page = ask("GET", f"{self.origin}/_simulator/calls?after={after}")
        return page["calls"] if isinstance(page, dict) else page


class Gateway(Process):
    """A node on one of the storages, and its admin API."""

    def __init__(self, program, folder, storage):
        config = pathlib.Path(folder) / "anima.toml"
        settings = {"admin_token": ADMIN_TOKEN}
        if storage == "postgres":
            # `cargo xtask clients` has started both, empty.
            settings["database_url"] = os.environ["ANIMA_TEST_POSTGRES_URL"]
            settings["redis_url"] = os.environ["ANIMA_TEST_REDIS_URL"]
        config.write_text("".join(f'{name} = "{text}"\n' for name, text in settings.items()))
        super().__init__([
            program, "serve", "--config", str(config), "--listen", "127.0.0.1:0",
            "--data-dir", str(folder / "data"),
        ], folder / "gateway.log")

    def admin(self, method, path, body=None):
        headers = {"authorization": f"Bearer {ADMIN_TOKEN}", "idempotency-key": "once"}
        return ask(method, f"{self.origin}/api/admin/v1{path}", body, headers)
