"""Asks once by an official SDK, as an app would, and says in JSON what the app sees.

    ask.py {openai,anthropic} BASE_URL HOST MODEL TEAM REQUEST_ID
"""

import json
import sys
import time

sdk, base_url, host, model, team, request_id = sys.argv[1:]
# The SDK's own retries stay at their default: whether it tries again is the server's say.
made = {
    "base_url": base_url,
    "api_key": "sk-made-up",
    "default_headers": {"Host": host, "x-llm-tag-team": team, "x-request-id": request_id},
}
messages = [{"role": "user", "content": "Where is my order?"}]
started = time.monotonic()
try:
    if sdk == "openai":
        import openai

        answer = openai.OpenAI(**made).chat.completions.create(model=model, messages=messages)
    else:
        import anthropic

        client = anthropic.Anthropic(**made)
        answer = client.messages.create(model=model, messages=messages, max_tokens=64)
    seen = {"model": answer.model}
except Exception as error:  # What it is, is what is asked.
    response = getattr(error, "response", None)
    seen = {
        "error": type(error).__name__,
        "module": type(error).__module__.split(".")[0],
        "status": getattr(error, "status_code", None),
        "message": str(error),
        "body": getattr(error, "body", None),
        "headers": dict(response.headers) if response is not None else {},
    }
seen["seconds"] = time.monotonic() - started
print(json.dumps(seen))
