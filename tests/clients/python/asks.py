"""What every Python client asks for, and what it must be told; see docs/compatibility.md.

Not a client. A client is a class whose methods are named like features; each takes the model's
public name and gives the usage that the SDK showed for each of its calls, in order.
"""

import base64
import os

from pydantic import BaseModel

ORIGIN = os.environ.get("MATRIX_ORIGIN", "")
KEY = os.environ.get("MATRIX_KEY", "")

SYSTEM = "You are brief."
PROMPT = "Say something, please."
WORDS = 16  # the simulated provider's answer
CALLS = 2  # how often it calls a tool that is offered

TOOL = "weather"
TOOL_DOES = "Tells the weather of a city."
TOOL_SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
    "required": ["city", "days"],
    "additionalProperties": False,
}
TOOL_RESULT = "sunny, 21 degrees"

# One red pixel.
PNG_BASE64 = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg=="
)
PNG = base64.b64decode(PNG_BASE64)
PNG_URL = f"data:image/png;base64,{PNG_BASE64}"


class City(BaseModel):
    """What a structured answer is to be."""

    name: str
    population: int
    capital: bool
    districts: list[str]


def usage(into, out, cached=None, reasoning=None):
    """Tokens as an SDK showed them; `into` with what was cached, `out` with what was thought."""
    return {"input": into, "output": out, "cached": cached, "reasoning": reasoning}


def expect(held, what):
    if not held:
        raise AssertionError(what)


def expect_words(text):
    expect(len((text or "").split()) == WORDS, f"{WORDS} words, not {text!r}")


def expect_stream(pieces):
    pieces = [piece for piece in pieces if piece]
    expect(len(pieces) > 1, f"more than one piece, not {pieces!r}")
    expect_words("".join(pieces))


def expect_calls(calls):
    """Names and arguments of the tool's calls."""
    calls = list(calls)
    expect(len(calls) == CALLS, f"{CALLS} calls, not {calls!r}")
    for name, arguments in calls:
        expect(name == TOOL, f"a call of {TOOL}, not {calls!r}")
        fits = isinstance(arguments.get("city"), str) and isinstance(arguments.get("days"), int)
        expect(fits, f"arguments of the schema, not {arguments!r}")


def expect_city(city):
    expect(isinstance(city, City), f"a City, not {city!r}")
    expect(city.name and city.districts, f"a City with all members, not {city!r}")
