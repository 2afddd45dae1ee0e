"""Runs one client: reads cells as lines of JSON, answers each with a line of JSON.

Usage: run.py CLIENT. A cell is `{"feature": …, "model": …}`, its answer `{"usages": […]}` or
`{"error": …}`. Not the judge of money: that is matrix.py.
"""

import importlib
import json
import sys
import traceback
import warnings

CLIENTS = {
    "openai": ("openai_sdk", "Chat"),
    "openai-responses": ("openai_sdk", "Responses"),
    "anthropic": ("anthropic_sdk", "Messages"),
    "google-genai": ("google_sdk", "Generate"),
    "langchain-openai": ("langchain_sdk", "OpenAI"),
    "langchain-openai-responses": ("langchain_sdk", "OpenAIResponses"),
    "langchain-anthropic": ("langchain_sdk", "Anthropic"),
    "langchain-google-genai": ("langchain_sdk", "Google"),
}


def main():
    warnings.simplefilter("ignore")
    module, name = CLIENTS[sys.argv[1]]
    client = getattr(importlib.import_module(module), name)()
    # An SDK that prints must not break the protocol.
    out, sys.stdout = sys.stdout, sys.stderr
    for line in sys.stdin:
        cell = json.loads(line)
        try:
            answer = {"usages": getattr(client, cell["feature"])(cell["model"])}
        except Exception as error:
            traceback.print_exc()
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=out, flush=True)


if __name__ == "__main__":
    main()
