#!/usr/bin/env python3
"""Sends the same requests to the real Cog server and to ours, and compares the responses.

    run.py --server PATH --worker PATH

Cog is that of the Python that runs this. Ours runs with `--queue-size 0`, with which it rejects like Cog, and with the stand-in
worker.

Our responses may contain more than those of Cog, never less: every key of Cog's response must be there, with the same value if it
can be compared. Intended differences are in DIFFERENCES, each with a row in docs/cog-differences.md. Any other difference fails,
and so does an entry that no request shows any more.
"""

import argparse
import http.client
import http.server
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent

# Name of a difference -> our behaviour.
DIFFERENCES = {
    "body errors": "the same status and message, as JSON",
    "missing content type": "the body is read",
    "webhook url": "an invalid URL is rejected",
    "seed": "a seed of more than 64 bits is rejected",
    "rules": "inputs that the model cannot use are rejected before they run",
    "docs": "the page that GET / names exists",
    "prefer": "parsed as in RFC 7240",
    "metrics": "metrics for Prometheus",
    "get": "predictions can be read, listed and deleted",
    "finished put": "the response is the stored result",
    "trainings": "not served",
    "openapi in setup": "available from the start",
    "logs of failures": "kept",
    "error prefix": "without the prefix",
    "streaming": "supported",
    "empty id": "replaced by a generated one",
    "same id": "rejected with 409 while it runs",
    "unknown path": "404 says in JSON that there is no such path",
    "method": "405 says in JSON that the path does not have this method",
}


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Side:
    """A server: the real one or ours."""

    def __init__(self, name, command, port, **popen):
        self.name, self.port = name, port
        self.log = tempfile.TemporaryFile()
        self.process = subprocess.Popen(command, stdout=self.log, stderr=self.log, **popen)

    def ask(self, method, path, headers=None, body=None, timeout=30):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            connection.putrequest(method, path)
            headers = dict(headers or {})
            if body is not None:
                headers["content-length"] = str(len(body))
            for name, value in headers.items():
                connection.putheader(name, value)
            connection.endheaders(body)
            answer = connection.getresponse()
            text = answer.read().decode()
            try:
                value = json.loads(text)
            except ValueError:
                value = None
            return {"status": answer.status, "type": answer.getheader("content-type"), "allow": answer.getheader("allow"),
                    "text": text, "json": value}
        finally:
            connection.close()

    def predict(self, method="POST", path="/predictions", prefer=None, **body):
        headers = {"content-type": "application/json"}
        if prefer:
            headers["prefer"] = prefer
        return self.ask(method, path, headers, json.dumps(body).encode())

    def until(self, *wanted):
        end = time.time() + 60
        while time.time() < end:
            try:
                status = self.ask("GET", "/health-check")["json"]["status"]
            except OSError:
                status = None
            if status in wanted:
                return status
            time.sleep(0.02)
        self.log.seek(0)
        sys.exit(f"{self.name} did not become {wanted}:\n{self.log.read().decode()[-3000:]}")

    def stop(self):
        self.process.kill()
        self.process.wait()


class Receiver(http.server.ThreadingHTTPServer):
    """Receives webhooks."""

    def __init__(self):
        self.sent = []
        super().__init__(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def url(self, path):
        return f"http://127.0.0.1:{self.server_address[1]}/{path}"

    def got(self, path):
        return [body for where, body in list(self.sent) if where == "/" + path]

    def wait(self, path):
        end = time.time() + 20
        while time.time() < end:
            sent = self.got(path)
            if any(body["status"] in ("succeeded", "failed", "canceled") for body in sent):
                time.sleep(0.1)
                return self.got(path)
            time.sleep(0.02)
        sys.exit(f"no completed webhook on {path}: {self.got(path)}")


class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.sent.append((self.path, json.loads(body)))
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


class Report:
    def __init__(self):
        self.failed, self.compared, self.shown = [], 0, set()

    def check(self, what, cog, ours, difference=None):
        """Compares two responses; `difference` names an intended difference that must show here."""
        self.compared += 1
        reasons = list(unlike(cog, ours))
        if difference:
            if reasons:
                self.shown.add(difference)
            else:
                self.failed.append(f"{what}: `{difference}` does not differ any more")
        elif reasons:
            self.failed.append(f"{what}: " + "; ".join(reasons))

    def same(self, what, cog, ours):
        self.compared += 1
        if cog != ours:
            self.failed.append(f"{what}: cog {cog!r}, ours {ours!r}")


# Values that differ from run to run, or by model.
FREE = {"logs", "metrics", "output", "version", "setup", "started_at", "completed_at", "created_at", "user_healthcheck_error"}


def unlike(cog, ours):
    if cog["status"] != ours["status"]:
        yield f"status {cog['status']} became {ours['status']} {ours['text'][:200]}"
    if cog["type"] != ours["type"]:
        yield f"type {cog['type']} became {ours['type']}"
    # `allow` has more methods where we serve more.
    for method in (cog["allow"] or "").split(","):
        if method not in (ours["allow"] or "").split(","):
            yield f"allow {cog['allow']} became {ours['allow']}"
    if cog["json"] is None:
        if cog["text"] != ours["text"]:
            yield f"text {cog['text']!r} became {ours['text']!r}"
    else:
        yield from within(cog["json"], ours["json"], "")


def within(cog, ours, place):
    """Why `ours` does not contain everything in `cog`."""
    if isinstance(cog, dict) and isinstance(ours, dict):
        for key, value in cog.items():
            if key not in ours:
                yield f"{place}.{key} is missing"
            elif key in FREE:
                if type(value) is not type(ours[key]):
                    yield f"{place}.{key} is {type(ours[key]).__name__}, not {type(value).__name__}"
            elif key != "id" or not str(value).startswith("pred_"):
                yield from within(value, ours[key], f"{place}.{key}")
    elif cog != ours:
        yield f"{place} {cog!r} became {ours!r}"


def both(sides, act):
    """Runs the same on both sides at the same time."""
    answers = [None, None]

    def run(at):
        answers[at] = act(sides[at])

    threads = [threading.Thread(target=run, args=(at,)) for at in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if None in answers:
        sys.exit("one of the servers did not respond")
    return answers


JSON = {"content-type": "application/json"}
QUICK = {"prompt": "a", "num_inference_steps": 1, "width": 512}

# (method, path, headers, body, difference)
REQUESTS = [
    ("GET", "/", {}, None, None),
    ("GET", "/health-check", {}, None, None),
    ("HEAD", "/health-check", {}, None, None),
    ("GET", "/nope", {}, None, "unknown path"),
    ("GET", "/metrics", {}, None, "metrics"),
    ("GET", "/docs", {}, None, "docs"),
    ("GET", "/predictions", {}, None, "get"),
    ("GET", "/predictions/abc", {}, None, "get"),
    ("DELETE", "/predictions/abc", {}, None, "get"),
    ("POST", "/health-check", {}, None, "method"),
    ("GET", "/shutdown", {}, None, "method"),
    ("PUT", "/predictions", {}, None, "method"),
    ("PATCH", "/predictions/abc", {}, None, "method"),
    ("OPTIONS", "/predictions", {}, None, "method"),
    ("POST", "/predictions/", {}, None, "unknown path"),
    ("GET", "/predictions/abc/cancel", {}, None, "method"),
    ("POST", "/predictions/unknown/cancel", {}, None, None),
    ("POST", "/trainings", JSON, "{}", "trainings"),
    ("POST", "/predictions", {}, None, None),
    ("POST", "/predictions", JSON, "{bad", "body errors"),
    ("POST", "/predictions", JSON, "", "body errors"),
    ("POST", "/predictions", JSON, "[]", "body errors"),
    ("POST", "/predictions", JSON, '"x"', "body errors"),
    ("POST", "/predictions", JSON, "null", "body errors"),
    ("POST", "/predictions", JSON, "{} x", "body errors"),
    ("POST", "/predictions", JSON, '{"input":{"prompt":"\\ud800"}}', "body errors"),
    ("POST", "/predictions", JSON, '{"id":5,"input":{"prompt":"a"}}', "body errors"),
    ("POST", "/predictions", JSON, '{"input":{"prompt":"a"},"webhook_events_filter":["nope"]}', "body errors"),
    ("POST", "/predictions", JSON, '{"input":{"prompt":"a"},"webhook_events_filter":null}', "body errors"),
    ("POST", "/predictions", JSON, '{"input":{"prompt":"a"},"webhook_events_filter":"start"}', "body errors"),
    ("POST", "/predictions", JSON, '{"input":{"prompt":"a"},"webhook":5}', "body errors"),
    ("POST", "/predictions", JSON, '{"input":{"prompt":"a"},"context":{"k":1}}', "body errors"),
    ("POST", "/predictions", JSON, '{"input":{"prompt":"a"},"context":null}', "body errors"),
    ("POST", "/predictions", JSON, '{"input":{"prompt":"a"},"input":{"prompt":"b"}}', "body errors"),
    ("POST", "/predictions", {"content-type": "text/plain"}, "{}", "body errors"),
    ("POST", "/predictions", {"content-type": "application/x-www-form-urlencoded"}, "{}", "body errors"),
    ("POST", "/predictions", {}, json.dumps({"input": QUICK}), "missing content type"),
    ("POST", "/predictions", {"content-type": "application/vnd.api+json; charset=utf-8"}, json.dumps({"input": QUICK}), None),
    ("POST", "/predictions", JSON, json.dumps({"input": {"prompt": "a"}, "webhook": "not a url"}), "webhook url"),
]

# Inputs, all with a prompt unless they have their own; the third is the difference.
INPUTS = [
    ({}, None), (None, None), ([1, 2], None), ("str", None), (5, None), (True, None),
    ({"prompt": 5}, None), ({"prompt": None}, None), ({"prompt": ["a"]}, None), ({"prompt": {"a": 1}}, None),
    ({"width": 1, "height": "x", "seed": -5}, None),
    ({"prompt": "a", "width": 100}, None), ({"prompt": "a", "width": 4000, "height": 1}, None),
    ({"prompt": "a", "width": "1024"}, None), ({"prompt": "a", "width": 512.5}, None), ({"prompt": "a", "width": True}, None),
    ({"prompt": "a", "width": None}, None), ({"prompt": "a", "height": 3072.5}, None), ({"prompt": "a", "height": 1e300}, None),
    ({"prompt": "a", "guidance_scale": 20.5}, None), ({"prompt": "a", "guidance_scale": -0.1}, None),
    ({"prompt": "a", "guidance_scale": "7"}, None), ({"prompt": "a", "guidance_scale": -1e-7}, None),
    ({"prompt": "a", "sync_weight": 30.000001}, None), ({"prompt": "a", "sync_decay_rate": 1.5}, None),
    ({"prompt": "a", "sync_freq": "1"}, None), ({"prompt": "a", "sync_freq": 1.5}, None), ({"prompt": "a", "sync_freq": None}, None),
    ({"prompt": "a", "sync_threshold": 51}, None), ({"prompt": "a", "sync_threshold": -1}, None),
    ({"prompt": "a", "num_inference_steps": 0}, None), ({"prompt": "a", "num_inference_steps": 201}, None),
    ({"prompt": "a", "num_inference_steps": 200.5}, None), ({"prompt": "a", "stride": "16"}, None), ({"prompt": "a", "stride": []}, None),
    ({"prompt": "a", "seed": -1}, None), ({"prompt": "a", "seed": None}, None), ({"prompt": "a", "seed": -0.5}, None),
    ({"prompt": "a", "loop_closure": "yes"}, None), ({"prompt": "a", "loop_closure": 1}, None), ({"prompt": "a", "loop_closure": None}, None),
    ({"prompt": "ü🏔", "negative_prompt": 7, "width": "\u00e4\"", "unknown": 1}, None),
    (QUICK, None), ({**QUICK, "nope": 1, "zzz": "x"}, None), ({**QUICK, "width": 1024.0, "guidance_scale": 7, "seed": 3}, None),
    ({**QUICK, "seed": 18446744073709551615}, None), ({**QUICK, "seed": 99999999999999999999}, "seed"),
    ({**QUICK, "stride": 0}, "rules"), ({**QUICK, "sync_freq": 0}, "rules"), ({**QUICK, "width": 1000}, "rules"),
    ({**QUICK, "stride": -16}, "rules"), ({**QUICK, "height": 1024, "loop_closure": True}, "rules"),
    ({**QUICK, "prompt": "", "negative_prompt": "x"}, None), ({**QUICK, "prompt": "a\u0000b\n"}, None),
]


def compare(sides, receiver, report):
    for method, path, headers, body, difference in REQUESTS:
        cog, ours = both(sides, lambda side: side.ask(method, path, headers, None if body is None else body.encode()))
        report.check(f"{method} {path} {body or ''}", cog, ours, difference)
        if difference == "body errors":
            report.same(f"words of {body}", (cog["status"], cog["text"]), (ours["status"], (ours["json"] or {}).get("detail")))
        settle(sides)
    for value, difference in INPUTS:
        cog, ours = both(sides, lambda side: side.predict(input=value))
        report.check(f"input {json.dumps(value)}", cog, ours, difference)
        settle(sides)

    # Requests beyond the input.
    for extra in ({"id": "my-id"}, {"id": ""}, {"id": "a/b ü"}, {"context": {"k": "v"}, "extra": 1, "created_at": "x", "version": "v"},
                  {"webhook_events_filter": []}, {"id": None, "webhook": None}):
        difference = "empty id" if extra.get("id") == "" else None
        report.check(f"extra {extra}", *both(sides, lambda side: side.predict(input=QUICK, **extra)), difference)
        settle(sides)
    for prefer, difference in (("respond-async", None), ("wait", None), ("Respond-Async", "prefer"), ("respond-async;x=1", "prefer")):
        report.check(f"prefer {prefer}", *both(sides, lambda side: side.predict(prefer=prefer, input=QUICK)), difference)
        settle(sides)

    # A failure is a response; ours keeps the logs, and the error has no prefix.
    cog, ours = both(sides, lambda side: side.predict(id="f", input={**QUICK, "prompt": "fail", "num_inference_steps": 4}))
    report.same("status of a failure", (cog["status"], cog["json"]["status"]), (ours["status"], ours["json"]["status"]))
    report.check("error of a failure", cog, ours, "error prefix")
    if cog["json"]["logs"] == "" and ours["json"]["logs"] != "":
        report.shown.add("logs of failures")
    settle(sides)

    # Idempotence, capacity, cancel.
    slow = {"prompt": "step=20", "num_inference_steps": 40, "width": 512}
    steps = [
        ("put async", lambda side: side.predict("PUT", "/predictions/p-1", "respond-async", input=slow), None),
        ("put again", lambda side: side.predict("PUT", "/predictions/p-1", input={"prompt": "other"}), None),
        ("put again async, invalid", lambda side: side.predict("PUT", "/predictions/p-1", "respond-async", input={}), None),
        ("put with another id", lambda side: side.predict("PUT", "/predictions/p-1", id="zzz", input=slow), None),
        ("busy", lambda side: side.ask("GET", "/health-check"), None),
        ("post while busy", lambda side: side.predict(input=slow), None),
        ("async post while busy", lambda side: side.predict(prefer="respond-async", input=slow), None),
        ("invalid post while busy", lambda side: side.predict(input={}), None),
        ("put while busy", lambda side: side.predict("PUT", "/predictions/p-2", input=slow), None),
        ("post of the same id", lambda side: side.predict(id="p-1", input=slow), "same id"),
        ("cancel", lambda side: side.ask("POST", "/predictions/p-1/cancel"), None),
        ("cancel again or late", lambda side: (side.until("READY"), side.ask("POST", "/predictions/p-1/cancel"))[1], None),
    ]
    for what, act, difference in steps:
        report.check(what, *both(sides, act), difference)
    settle(sides)
    done = lambda side: side.predict("PUT", "/predictions/p-3", input=QUICK)
    report.check("put sync", *both(sides, done))
    settle(sides)
    first, second = both(sides, done), None
    settle(sides)
    second = both(sides, done)
    if second[1]["json"]["created_at"] == first[1]["json"]["created_at"]:
        report.shown.add("finished put")
    settle(sides)

    def cancel_sync(side):
        answer = []
        waiting = threading.Thread(target=lambda: answer.append(side.predict(id="sy", input=slow)))
        waiting.start()
        side.until("BUSY")
        side.ask("POST", "/predictions/sy/cancel")
        waiting.join()
        return answer[0]

    report.check("cancel of a sync prediction", *both(sides, cancel_sync))
    settle(sides)

    def leave(side):
        try:
            side.ask("POST", "/predictions", JSON, json.dumps(
                {"id": "dc", "webhook": receiver.url(side.name + "-dc"), "webhook_events_filter": ["completed"], "input": slow}).encode(), 0.3)
        except TimeoutError:
            pass
        return receiver.wait(side.name + "-dc")[-1]["status"]

    report.same("status after the client left", *both(sides, leave))
    settle(sides)

    events = lambda side: side.ask("POST", "/predictions", {**JSON, "accept": "text/event-stream"}, json.dumps({"input": QUICK}).encode())
    report.check("events", *both(sides, events), "streaming")
    settle(sides)
    webhooks(sides, receiver, report)


def webhooks(sides, receiver, report):
    """Sequences of webhooks: events, their statuses and kinds of output, and no missing key."""
    cases = [
        ("ok", {"prompt": "step=20", "num_inference_steps": 70, "width": 512}, None),
        ("fail", {**QUICK, "prompt": "fail", "num_inference_steps": 4}, None),
        ("start-output", QUICK, ["start", "output"]),
        ("output-completed", QUICK, ["output", "completed"]),
        ("completed", QUICK, ["completed"]),
        ("start-completed", QUICK, ["completed", "start", "start"]),
    ]
    for name, value, wanted in cases:
        def run(side):
            body = {"id": "wh-" + name, "webhook": receiver.url(f"{side.name}-{name}"), "input": value}
            if wanted is not None:
                body["webhook_events_filter"] = wanted
            answer = side.predict(prefer="respond-async", **body)
            time.sleep(0.5)
            side.until("READY")
            time.sleep(0.7)
            return answer, receiver.got(f"{side.name}-{name}")

        (cog, cog_sent), (ours, our_sent) = both(sides, run)
        report.check(f"webhook {name}", cog, ours)
        # Cog sends its last two at once, in any order.
        ordered = sorted(cog_sent, key=lambda body: body["status"] != "processing")
        report.same(f"webhooks of {name}", shape(ordered), shape(our_sent))
        for body in cog_sent:
            for twin in our_sent:
                if shape([twin]) == shape([body]):
                    missing = set(body) - set(twin)
                    report.same(f"keys of {name}", set(), missing)


def shape(sent):
    """Statuses and kinds of output in order; logs, whose number depends on time, counted as one."""
    kinds = []
    for body in sent:
        output = body.get("output")
        kind = (body["status"], "list" if isinstance(output, list) else "text" if output else "none", body["logs"] != "" or body["status"] != "processing")
        if not kinds or kinds[-1] != kind:
            kinds.append(kind)
    return kinds


def settle(sides):
    for side in sides:
        side.until("READY")


def during_setup(report, cog, ours):
    """Responses while both still load."""
    sides = (cog, ours)
    for side in sides:
        side.until("STARTING")
    for what, act, difference in (
        ("post during setup", lambda side: side.predict(input={}), None),
        ("cancel during setup", lambda side: side.ask("POST", "/predictions/x/cancel"), None),
        ("openapi during setup", lambda side: side.ask("GET", "/openapi.json"), "openapi in setup"),
        ("root during setup", lambda side: side.ask("GET", "/"), None),
        ("health during setup", lambda side: side.ask("GET", "/health-check"), None),
        ("shutdown during setup", lambda side: side.ask("POST", "/shutdown"), None),
    ):
        report.check(what, *both(sides, act), difference)
    codes = [side.process.wait(timeout=20) for side in sides]
    report.same("exit code", *codes)


def start(options, folder, load_ms=0):
    peer, port = folder / "peer", free_port()
    shutil.copytree(HERE / "peer", peer, dirs_exist_ok=True)
    (peer / ".cog").mkdir(exist_ok=True)
    shutil.copy(ROOT / "tests/tests/service/cog-openapi.json", peer / ".cog/openapi_schema.json")
    if load_ms:
        text = (peer / "predict.py").read_text().replace("        pass\n", f"        time.sleep({load_ms / 1000})\n", 1)
        (peer / "predict.py").write_text(text)
    # Cog starts its worker as the first `python` in the path.
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "PORT": str(port), "COG_PREDICT_TYPE_STUB": "predict.py:Predictor"}
    cog = Side("cog", [sys.executable, "-m", "cog.server.http", "--host", "127.0.0.1"], port, cwd=peer, env=environment)
    port = free_port()
    command = [options.server, "serve", "--host", "127.0.0.1", "--port", str(port), "--worker", options.worker,
               "--data-dir", folder / "data", "--queue-size", "0"]
    ours = Side("ours", command, port, env={**os.environ, "STAND_IN_LOAD_MS": str(load_ms)})
    return cog, ours


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--server", required=True, help="our server")
    arguments.add_argument("--worker", required=True, help="the stand-in worker")
    options = arguments.parse_args()
    report, receiver = Report(), Receiver()
    with tempfile.TemporaryDirectory() as folder:
        sides = start(options, Path(folder))
        try:
            settle(sides)
            compare(sides, receiver, report)
        finally:
            for side in sides:
                side.stop()
    with tempfile.TemporaryDirectory() as folder:
        sides = start(options, Path(folder), load_ms=8000)
        try:
            during_setup(report, *sides)
        finally:
            for side in sides:
                side.stop()
    for name in sorted(set(DIFFERENCES) - report.shown):
        report.failed.append(f"difference `{name}` was not seen: {DIFFERENCES[name]}")
    for line in report.failed:
        print("FAILED", line)
    print(f"{report.compared} comparisons, {len(report.failed)} failed, {len(report.shown)} intended differences seen")
    sys.exit(bool(report.failed))


if __name__ == "__main__":
    main()
