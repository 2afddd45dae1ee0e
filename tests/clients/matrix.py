"""Every SDK against every provider's dialect, exact in usage and on both sides of the ledger.

Run by `cargo xtask clients`, which installs the SDKs and builds the program; see
docs/compatibility.md. The SDKs run unchanged, in processes of their own (python/run.py,
node/run.mjs), with another base URL and key. Here the rows are made, cells are given out, and each
is judged by the simulated provider's truth log. Exit code 1 when a cell failed.
"""

import argparse
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

from books import COST, SALE, Books, Wrong
from python.asks import PNG_BASE64
from servers import Gateway, Provider, Refused

HERE = pathlib.Path(__file__).parent
APP, CREDIT = "matrix", "1000.00"
CHATS = ["chat", "stream", "tools", "vision", "structured"]
BOTH = [*CHATS, "embeddings"]

# Where the counts stand in the README.
BEGIN, END = "<!-- clients: begin -->", "<!-- clients: end -->"

# How names of clients begin: the rows of the counts.
LIBRARIES = ["OpenAI Python", "OpenAI Node", "Anthropic Python", "Anthropic TypeScript",
             "Google Gen AI Python", "Google Gen AI JavaScript", "LangChain", "Vercel AI SDK"]

# Name in the table: runtime, name of the runner, features.
CLIENTS = {
    "OpenAI Python, chat": ("python", "openai", BOTH),
    "OpenAI Python, Responses": ("python", "openai-responses", CHATS),
    "Anthropic Python": ("python", "anthropic", CHATS),
    "Google Gen AI Python": ("python", "google-genai", BOTH),
    "OpenAI Node, chat": ("node", "openai", BOTH),
    "OpenAI Node, Responses": ("node", "openai-responses", CHATS),
    "Anthropic TypeScript": ("node", "anthropic", CHATS),
    "Google Gen AI JavaScript": ("node", "google-genai", BOTH),
    "Vercel AI SDK, OpenAI chat": ("node", "ai-openai", BOTH),
    "Vercel AI SDK, OpenAI Responses": ("node", "ai-openai-responses", CHATS),
    "Vercel AI SDK, Anthropic": ("node", "ai-anthropic", CHATS),
    "Vercel AI SDK, Google": ("node", "ai-google", BOTH),
    "LangChain OpenAI, chat": ("python", "langchain-openai", BOTH),
    "LangChain OpenAI, Responses": ("python", "langchain-openai-responses", CHATS),
    "LangChain Anthropic": ("python", "langchain-anthropic", CHATS),
    "LangChain Google": ("python", "langchain-google-genai", BOTH),
}

PROJECT = {"settings": {"project": "p", "location": "eu"}}
DATED = {"settings": {"api_version": "2026-06-01"}}

# Channel code: its `provider`, what follows the origin, how its models are called (Claude's have a
# dialect of their own in the clouds), and more members of the row.
PROVIDERS = {
    "openai": ("openai", "/v1", "x", {}),
    "openai-responses": ("openai_responses", "/v1", "x", {}),
    "anthropic": ("anthropic", "", "x", {}),
    "gemini": ("gemini", "", "x", {}),
    "azure": ("azure_openai", "", "x", {}),
    "azure-dated": ("azure_openai", "", "x", DATED),
    "vertex": ("vertex", "", "x", PROJECT),
    "vertex-claude": ("vertex", "", "claude", PROJECT),
    "bedrock": ("bedrock", "", "x", {}),
    "bedrock-claude": ("bedrock", "", "claude", {}),
}

# Channels whose provider has embeddings.
EMBEDDERS = ["openai", "gemini", "azure", "azure-dated"]

# Usage of every kind, and tools called twice.
OPTIONS = "+reasoning:5+cached:3+calls:2"
EMBEDDING_MODEL = "sim-embedding"
# Converse counts what was thought among what was said, and does not tell it apart.
UNTOLD_REASONING = ["bedrock"]
# Amazon's keys sign each request; the others are sent as they are.
SECRETS = {"bedrock": "AKIASIMULATED:simulated-secret"}


def rows(gateway, provider, channels):
    """A channel, an alias and prices for each provider, and an app with a key, which it gives."""
    def price(rates, scope):
        meters = [{"meter": name, "per": 1_000_000, "amount": amount}
                  for name, amount in rates.items()]
        gateway.admin("POST", "/prices", {**scope, "currency": "USD", "meters": meters})

    def alias(code, kind, route):
        gateway.admin("POST", "/aliases", {
            "code": code, "kind": kind, "routes": [route], "retry": {"max_attempts": 1}})
        price(SALE, {"code": f"{code}-sale", "side": "sale", "alias": code})
        price(COST, {"code": f"{code}-cost", "side": "cost", **route})

    for code in channels:
        name, path, model, more = PROVIDERS[code]
        gateway.admin("POST", "/channels", {
            "code": code, "provider": name, "base_url": provider.origin + path,
            "credentials": [{"code": "first", "secret": SECRETS.get(name, "sk-sim")}],
            "allow_private_network": True, **more,
        })
        alias(f"sim-{code}", "chat", {"channel": code, "model": f"sim-{model}{OPTIONS}"})
        if code in EMBEDDERS:
            alias(f"embed-{code}", "embedding", {"channel": code, "model": EMBEDDING_MODEL})
    gateway.admin("POST", "/apps", {"code": APP, "name": "Matrix"})
    gateway.admin("POST", f"/apps/{APP}/topups", {"amount": CREDIT})
    return gateway.admin("POST", f"/apps/{APP}/keys", {})["secret"]


class Client:
    """A process with one SDK."""

    def __init__(self, runtime, name, env, packages, log):
        # Node looks for packages beside the script, so `cargo xtask clients` puts it there.
        node = ["node", f"{packages}/run.mjs"]
        start = node if runtime == "node" else [sys.executable, str(HERE / "python" / "run.py")]
        self.log = log.open("wb")
        self.child = subprocess.Popen(
            [*start, name], env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=self.log, text=True)

    def run(self, feature, model):
        """The usages that the SDK showed."""
        print(json.dumps({"feature": feature, "model": model}), file=self.child.stdin, flush=True)
        line = self.child.stdout.readline()
        if not line:
            raise Wrong(f"the client ended; see {self.log.name}")
        answer = json.loads(line)
        if "error" in answer:
            raise Wrong(answer["error"])
        return answer["usages"]

    def stop(self):
        self.child.stdin.close()
        try:
            self.child.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self.child.kill()
        self.log.close()


def clean_environment(origin, key):
    """The SDKs see no key and no endpoint but ours, and no proxy on the way to it."""
    foreign = ("ANIMA_", "OPENAI_", "ANTHROPIC_", "GOOGLE_", "GEMINI_", "LANGCHAIN_", "LANGSMITH_")
    env = {name: text for name, text in os.environ.items()
           if not name.startswith(foreign) and "proxy" not in name.lower()}
    return {**env, "MATRIX_ORIGIN": origin, "MATRIX_KEY": key}


def judge(client, books, feature, channel):
    """One cell: nothing, or what was wrong."""
    alias = f"embed-{channel}" if feature == "embeddings" else f"sim-{channel}"
    try:
        usages = client.run(feature, alias)
        if channel in UNTOLD_REASONING:
            usages = [{**usage, "reasoning": None} for usage in usages]
        books.check(channel, usages, [PNG_BASE64] if feature == "vision" else [])
    except (Wrong, Refused) as error:
        books.new_calls()
        return str(error)
    return None


def run(arguments, folder):
    """All cells: what was wrong, or nothing, by client, provider and feature."""
    provider = Provider(arguments.program, folder)
    gateway = Gateway(arguments.program, folder, arguments.storage)
    try:
        channels = chosen(PROVIDERS, arguments.provider)
        env = clean_environment(gateway.origin, rows(gateway, provider, channels))
        books, cells = Books(gateway, provider), {}
        for title in chosen(CLIENTS, arguments.client):
            runtime, name, features = CLIENTS[title]
            log = folder / f"{runtime}-{name}.log"
            client = Client(runtime, name, env, arguments.packages, log)
            for channel in channels:
                for feature in wanted(features, channel, arguments.feature):
                    wrong = judge(client, books, feature, channel)
                    cells[title, channel, feature] = wrong
                    word = "ok" if wrong is None else f"FAILED: {wrong}"
                    print(f"{title} | {channel} | {feature} | {word}", flush=True)
            client.stop()
        if not any(cells.values()):
            books.close(APP, CREDIT)
        return cells
    finally:
        gateway.stop()
        provider.stop()


def wanted(features, channel, only):
    """The features to be tried with a channel."""
    return [feature for feature in features if only in (None, feature)
            and (feature != "embeddings" or channel in EMBEDDERS)]


def chosen(table, word):
    """The entries whose name contains the word, all without one."""
    names = [name for name in table if word is None or word.lower() in name.lower()]
    if not names:
        raise SystemExit(f"nothing is called like `{word}`; there are: {', '.join(table)}")
    return names


def table(cells):
    """The compatibility table: `all` where every feature passed."""
    channels = list(dict.fromkeys(channel for _, channel, _ in cells))
    lines = [["client", *(f"`{channel}`" for channel in channels)],
             ["---"] * (len(channels) + 1)]
    for title in dict.fromkeys(title for title, _, _ in cells):
        line = [title]
        for channel in channels:
            mine = {f: wrong for (t, c, f), wrong in cells.items() if (t, c) == (title, channel)}
            passed = [feature for feature, wrong in mine.items() if wrong is None]
            line.append("all" if len(passed) == len(mine) else ", ".join(passed) or "none")
        lines.append(line)
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def counts(cells):
    """The same as counts, for the README: a row for each library, whatever it speaks."""
    channels = list(dict.fromkeys(channel for _, channel, _ in cells))
    lines = [["SDK", *(f"`{channel}`" for channel in channels)], ["---"] * (len(channels) + 1)]
    for name in LIBRARIES:
        line = [name]
        for channel in channels:
            mine = [wrong for (title, c, _), wrong in cells.items()
                    if c == channel and title.startswith(name)]
            line.append(f"{mine.count(None)}/{len(mine)}")
        lines.append(line)
    passed = list(cells.values()).count(None)
    rows = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    return f"{passed} of {len(cells)} cells:\n\n{rows}"


def put_into(readme, shown):
    """Writes what is shown between the markers, and nothing else."""
    before, rest = readme.read_text().split(BEGIN)
    _, after = rest.split(END)
    readme.write_text(f"{before}{BEGIN}\n{shown}{END}{after}")


def main():
    parser = argparse.ArgumentParser(prog="cargo xtask clients", description=__doc__)
    parser.add_argument("--program", required=True, help=argparse.SUPPRESS)
    parser.add_argument("--packages", default="", help=argparse.SUPPRESS)
    parser.add_argument("--client", help="only clients whose name contains this")
    parser.add_argument("--provider", help="only channels whose name contains this")
    parser.add_argument("--feature", help="only this feature")
    parser.add_argument("--storage", choices=["sqlite", "postgres"], default="sqlite",
                        help="where the gateway keeps its books; postgres comes with a Redis")
    parser.add_argument("--out", type=pathlib.Path, help="write the table to this file")
    parser.add_argument("--readme", type=pathlib.Path,
                        help="write the counts between the markers of this file")
    parser.add_argument("--keep", action="store_true", help="keep the folder with all logs")
    arguments = parser.parse_args()
    if arguments.readme and (arguments.client or arguments.provider or arguments.feature):
        raise SystemExit("--readme wants a whole run: without --client, --provider and --feature")
    folder = pathlib.Path(tempfile.mkdtemp(prefix="anima-clients-"))
    cells = run(arguments, folder)
    failed = {cell: wrong for cell, wrong in cells.items() if wrong is not None}
    shown = table(cells)
    print(f"\n{shown}\n{len(cells) - len(failed)} of {len(cells)} cells passed")
    if arguments.out:
        arguments.out.write_text(shown)
    if arguments.readme:
        put_into(arguments.readme, counts(cells))
    if failed or arguments.keep:
        print(f"logs are in {folder}")
    else:
        shutil.rmtree(folder)
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
