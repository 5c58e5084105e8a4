"""client.py: requests to servers, and a receiver of webhooks."""

import hashlib
import http.client
import http.server
import json
import random
import threading

# What a request fails with whose server is killed or frozen.
REFUSED = (OSError, http.client.HTTPException, json.JSONDecodeError)
ENDS = ("succeeded", "failed", "canceled")


def ask(port, method, path, body=None, headers=None, timeout=10):
    """Status and body of the response."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        text = None if body is None else json.dumps(body)
        connection.request(method, path, text, {"content-type": "application/json", **(headers or {})})
        response = connection.getresponse()
        answer = response.read()
        is_json = response.headers.get("content-type", "").startswith("application/json")
        return response.status, json.loads(answer) if is_json else answer.decode(errors="replace")
    finally:
        connection.close()


def end(prediction):
    """What must never change of a prediction that has ended."""
    text = json.dumps([prediction.get(key) for key in ("output", "error", "logs")], sort_keys=True)
    return prediction["status"], prediction["completed_at"], hashlib.sha256(text.encode()).hexdigest()


class Receiver:
    """Receives webhooks. Of ends it refuses one in ten, the first time."""

    def __init__(self):
        self.ends, self.refused, self.lock = {}, set(), threading.Lock()
        receiver = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                self.send_response(receiver.take(self.headers["webhook-id"], body))
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

        class Server(http.server.ThreadingHTTPServer):
            request_queue_size = 256
            daemon_threads = True

            def handle_error(self, *_):
                """A sender that was killed."""

        self.server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def take(self, name, prediction):
        if prediction["status"] not in ENDS:
            return 200
        with self.lock:
            if name not in self.refused and random.random() < 0.1:
                self.refused.add(name)
                return 503
            self.ends.setdefault(prediction["id"], []).append((name, end(prediction)))
        return 200
