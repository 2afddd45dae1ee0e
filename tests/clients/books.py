"""What a call must come to, and whether that is what was booked.

Shares no arithmetic with the program: amounts are exact fractions, rounded once, half to even.
"""

import time
from decimal import Decimal
from fractions import Fraction

# Per million tokens, in dollars. Odd on purpose, so that every amount is rounded.
SALE = {"input_tokens": "1.2345678", "cached_input_tokens": "0.1234567",
        "output_tokens": "6.7891234"}
COST = {"input_tokens": "0.9876543", "cached_input_tokens": "0.0987654",
        "output_tokens": "4.3210987"}


class Wrong(Exception):
    """Books or usage are not what the provider's log says."""


def nano(text):
    return int(Decimal(text) * 10**9)


def owed(rates, billed):
    """Nano-dollars for what the provider billed."""
    cached = billed["cached_tokens"]
    tokens = {"input_tokens": billed["prompt_tokens"] - cached, "cached_input_tokens": cached,
              "output_tokens": billed["completion_tokens"]}
    exact = sum(Fraction(rates[name]) * count for name, count in tokens.items())
    return round(exact * 10**9 / 10**6)


class Books:
    """Compares what the gateway booked with what the provider did, cell by cell."""

    def __init__(self, gateway, provider):
        self.gateway, self.provider = gateway, provider
        self.seen, self.sold = 0, 0

    def new_calls(self):
        """The provider's calls since the last time, once they have ended."""
        for _ in range(200):
            calls = self.provider.calls(self.seen)
            if all(call["outcome"] != "open" for call in calls):
                break
            time.sleep(0.05)
        self.seen = max([call["number"] for call in calls], default=self.seen)
        return calls

    def check(self, channel, usages, pictures):
        """Usage as the SDK showed it, both sides of the ledger, and the pictures that were to be
        shown, against the truth log."""
        calls = self.new_calls()
        if len(calls) != len(usages):
            raise Wrong(f"{len(usages)} calls of the SDK were {len(calls)} of the provider")
        for call, usage in zip(calls, usages):
            self.check_usage(call["billed"], usage)
            if call.get("pictures", []) != pictures:
                raise Wrong(f"the provider was shown {call.get('pictures')}, not {pictures}")
            self.check_legs(channel, call)

    @staticmethod
    def check_usage(billed, usage):
        truth = {"input": billed["prompt_tokens"], "output": billed["completion_tokens"],
                 "cached": billed["cached_tokens"], "reasoning": billed["reasoning_tokens"]}
        for name, count in usage.items():
            if count is not None and count != truth[name]:
                raise Wrong(f"usage as shown {usage}, as billed {truth}")

    def check_legs(self, channel, call):
        sale, cost = owed(SALE, call["billed"]), owed(COST, call["billed"])
        wanted = [("revenue", sale, False), (f"payable:{channel}", cost, False)]
        found = None
        # The settlement precedes a reply's last bytes, which an SDK may not have waited for.
        for _ in range(100):
            page = self.gateway.admin("GET", f"/ledger/postings?request_id={call['request_id']}")
            found = [(leg["credit"], nano(leg["amount"]), leg["estimate"])
                     for leg in page["items"]]
            if found:
                break
            time.sleep(0.05)
        if found != wanted:
            raise Wrong(f"booked {found}, owed {wanted} for {call['billed']}")
        self.sold += sale

    def refused(self):
        """Nothing reached the provider."""
        calls = self.new_calls()
        if calls:
            raise Wrong(f"a refused call reached the provider: {calls}")

    def close(self, app, credit):
        """The whole: nothing held, the wallet exact, the invariants kept."""
        balance = self.gateway.admin("GET", f"/apps/{app}/balance")
        left = nano(credit) - self.sold
        if (nano(balance["posted"]), nano(balance["held"])) != (left, 0):
            raise Wrong(f"the wallet says {balance}, the sum of all sales {left} nano-dollars left")
        report = self.gateway.admin("GET", "/ledger/verify")
        if report["ok"] is not True:
            raise Wrong(f"the ledger's check says {report}")
