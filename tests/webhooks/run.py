#!/usr/bin/env python3
"""Verifies our webhooks with Replicate's clients: `Webhooks.validate` of the Python package and `validateWebhook` of the npm package.

    run.py --server PATH --worker PATH

Needs Node 18 or newer, with the npm package beside this file. The server runs with the stand-in worker. It sends all four events, an
end that its receiver first rejects, and texts in many scripts. Both clients must accept every webhook, and reject it after its body,
id, timestamp or the secret was changed.
"""

import argparse
import http.server
import json
import queue
import subprocess
import sys
import tempfile
import threading
import urllib.request
from pathlib import Path

from replicate.webhook import InvalidSignatureError, Webhooks, WebhookSigningSecret

HERE = Path(__file__).resolve().parent
PROMPTS = ["a mountain", "日本の山 🏔 ñ", "quotes \" \\ and\nlines\u2028 of \u0000 it", "fail"]


class Receiver(http.server.ThreadingHTTPServer):
    """Keeps every request, and rejects the first end."""

    def __init__(self):
        self.sent, self.refuse = queue.Queue(), True
        super().__init__(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.serve_forever, daemon=True).start()


class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        refused = self.server.refuse and json.loads(body)["completed_at"] is not None
        self.server.refuse &= not refused
        self.server.sent.put(({name.lower(): value for name, value in self.headers.items()}, body.decode()))
        self.send_response(503 if refused else 200)
        self.end_headers()

    def log_message(self, *_):
        pass


def gather(server, worker):
    """All webhooks of some predictions, and the secret that the server shows."""
    receiver = Receiver()
    with tempfile.TemporaryDirectory() as data:
        command = [server, "serve", "--host", "127.0.0.1", "--port", "0", "--data-dir", data, "--worker", worker, "--show-webhook-secret"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
            try:
                url = "http://" + process.stdout.readline().removeprefix("Listening on ").split(". ")[0]
                while json.load(urllib.request.urlopen(f"{url}/health-check"))["status"] != "READY":
                    pass
                webhooks = []
                for prompt in PROMPTS:
                    body = {"webhook": f"http://127.0.0.1:{receiver.server_address[1]}/", "input": {"prompt": f"step=20 {prompt}"}}
                    request = urllib.request.Request(f"{url}/predictions", json.dumps(body).encode(), {"content-type": "application/json"})
                    urllib.request.urlopen(request).read()
                    while not webhooks or json.loads(webhooks[-1][1])["completed_at"] is None or receiver.refuse or receiver.sent.qsize():
                        webhooks.append(receiver.sent.get(timeout=30))
                    # The rejected end is sent again.
                    if prompt == PROMPTS[0]:
                        webhooks.append(receiver.sent.get(timeout=30))
                secret = json.load(urllib.request.urlopen(f"{url}/v1/webhooks/default/secret"))["key"]
            finally:
                process.kill()
    return webhooks, secret


def forgeries(headers, body, secret):
    """The same webhook, changed in one place."""
    yield "body", headers, body + " ", secret
    yield "id", headers | {"webhook-id": headers["webhook-id"] + "0"}, body, secret
    yield "timestamp", headers | {"webhook-timestamp": str(int(headers["webhook-timestamp"]) + 1)}, body, secret
    yield "secret", headers, body, "whsec_" + secret[-8:] + secret[6:-8]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--server", required=True, help="our server")
    parser.add_argument("--worker", required=True, help="the stand-in worker")
    arguments = parser.parse_args()
    webhooks, secret = gather(arguments.server, arguments.worker)
    cases = [("as sent", *webhook, secret, True) for webhook in webhooks]
    cases += [(*forged, False) for webhook in webhooks for forged in forgeries(*webhook, secret)]

    lines = "".join(json.dumps({"headers": headers, "body": body, "secret": key}) + "\n" for _, headers, body, key, _ in cases)
    node = subprocess.run(["node", "verify.mjs"], cwd=HERE, input=lines, capture_output=True, text=True, check=True)
    by_node = [json.loads(line) for line in node.stdout.splitlines()]

    wrong = 0
    for (what, headers, body, key, valid), by_javascript in zip(cases, by_node, strict=True):
        try:
            Webhooks.validate(headers=headers, body=body, secret=WebhookSigningSecret(key=key), tolerance=300)
            by_python = True
        except InvalidSignatureError:
            by_python = False
        except Exception as error:  # what the tolerance refuses is refused too
            by_python = False if not valid else error
        if (by_python, by_javascript) != (valid, valid):
            print(f"{what}: expected {valid}, Python says {by_python}, JavaScript says {by_javascript}: {headers}")
            wrong += 1
    events = {(json.loads(body)["status"], bool(json.loads(body)["logs"]), bool(json.loads(body)["output"])) for _, body in webhooks}
    ends = [headers["webhook-id"] for headers, body in webhooks if json.loads(body)["completed_at"]]
    assert len(events) >= 5 and len(ends) == len(PROMPTS) + 1 and ends[0] == ends[1], (events, ends)
    print(f"{len(webhooks)} webhooks, {len(cases) - len(webhooks)} forgeries, 2 clients: {wrong} wrong")
    sys.exit(wrong != 0)


if __name__ == "__main__":
    main()
