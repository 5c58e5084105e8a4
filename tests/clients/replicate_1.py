"""Replicate's Python client 1.0.7."""

import asyncio
import http.server
import os
import queue
import threading

import cases
import httpx
import replicate
from cases import MODEL, OTHER, PNG, SCRATCH, TOKEN, URL, raises
from replicate.exceptions import ModelError, ReplicateError
from replicate.webhook import Webhooks

os.environ["REPLICATE_POLL_INTERVAL"] = "0.05"
client = replicate.Client(base_url=URL, api_token=TOKEN or None)
client.poll_interval = 0.05
QUICK = {"prompt": "a", "num_inference_steps": 2}
VERSION = client.models.get(MODEL).latest_version.id


def gated(name):
    """An input whose picture is not done before the gate is open, and the gate."""
    gate = SCRATCH / name
    return {"prompt": f"until={gate}", "num_inference_steps": 2}, gate


def case_run():
    for reference in (MODEL, f"{MODEL}:{VERSION}"):
        output = client.run(reference, input=QUICK)
        assert output.read().startswith(PNG), output
        assert client.run(reference, input=QUICK, use_file_output=False).startswith("data:image/png;base64,")
    assert b"".join(client.run(MODEL, input=QUICK)).startswith(PNG)


def case_run_looks_again_after_it_was_held_in_vain():
    given, gate = gated("again")
    timer = threading.Timer(1.5, gate.touch)
    timer.start()
    assert client.run(f"{MODEL}:{VERSION}", input=given, wait=1).read().startswith(PNG)
    assert client.run(MODEL, input=QUICK, wait=False).read().startswith(PNG)


def case_run_fails():
    error = raises(ModelError, lambda: client.run(MODEL, input={"prompt": "fail"}), "told to fail")
    assert error.prediction.status == "failed"


def case_run_from_the_environment():
    """With a client of the module, as most scripts have it."""
    os.environ["REPLICATE_BASE_URL"], os.environ["REPLICATE_API_TOKEN"] = URL, TOKEN or "none"
    try:
        assert replicate.run(MODEL, input=QUICK).read().startswith(PNG)
    finally:
        del os.environ["REPLICATE_BASE_URL"], os.environ["REPLICATE_API_TOKEN"]


def case_run_async():
    async def run():
        output = await client.async_run(MODEL, input=QUICK)
        prediction = await client.predictions.async_create(version=VERSION, input=QUICK)
        await prediction.async_wait()
        return await output.aread(), prediction.status

    data, status = asyncio.run(run())
    assert data.startswith(PNG) and status == "succeeded"


def case_create_get_wait():
    given, gate = gated("wait")
    prediction = client.predictions.create(version=VERSION, input=given)
    assert (prediction.status, prediction.model, prediction.version) == ("starting", MODEL, VERSION), prediction
    while prediction.status == "starting":
        prediction.reload()
    assert (prediction.status, prediction.output) == ("processing", None)
    assert client.predictions.get(prediction.id).input["prompt"] == given["prompt"]
    gate.touch()
    prediction.wait()
    assert prediction.status == "succeeded" and prediction.output.startswith("data:image/png;base64,"), prediction.status
    assert prediction.progress.percentage == 1.0, prediction.logs
    assert prediction.metrics["predict_time"] >= 0 and prediction.error is None
    by_model = client.models.predictions.create(model=MODEL, input=QUICK, wait=30)
    assert by_model.status == "succeeded"


def case_cancel():
    given, _ = gated("never")
    prediction = client.predictions.create(model=MODEL, input=given)
    for _ in range(2):
        prediction.cancel()
        assert prediction.status == "canceled", prediction.status
    assert client.predictions.get(prediction.id).status == "canceled"


def case_list_and_paginate():
    ids = [client.predictions.create(version=VERSION, input=QUICK, wait=True).id for _ in range(3)]
    page = client.predictions.list()
    assert [prediction.id for prediction in page.results[:3]] == ids[::-1] and page.previous is None
    found = [prediction.id for page in replicate.paginate(client.predictions.list) for prediction in page]
    assert len(found) == len(set(found)) and found[: len(page.results)] == [prediction.id for prediction in page.results]
    # A picture of a list is a URL that needs no token.
    assert httpx.get(page.results[0].output).content.startswith(PNG)


def case_pages():
    """More predictions than a page has."""
    for _ in range(101):
        client.predictions.create(version=VERSION, input=QUICK, wait=True)
    pages = list(replicate.paginate(client.predictions.list))
    assert len(pages) > 1 and len(pages[0].results) == 100, [len(page.results) for page in pages]
    back = client.predictions.list(pages[1].previous)
    assert [prediction.id for prediction in back] == [prediction.id for prediction in pages[0]]


def case_stream():
    events = list(client.stream(MODEL, input=QUICK))
    kinds = [event.event.value for event in events]
    assert kinds[-1] == "done" and kinds[-2] == "output" and set(kinds) == {"logs", "output", "done"}, kinds
    assert events[-2].data.read().startswith(PNG)
    late = client.predictions.create(version=VERSION, input=QUICK, wait=True)
    assert [event.event.value for event in late.stream()][-2:] == ["output", "done"]
    raises(RuntimeError, lambda: list(client.stream(MODEL, input={"prompt": "fail"})), "told to fail")


def case_models():
    model = client.models.get(MODEL)
    assert (f"{model.owner}/{model.name}", model.visibility) == (MODEL, "public")
    assert [version.id for version in model.versions.list()] == [VERSION]
    version = model.versions.get(VERSION)
    assert "prompt" in version.openapi_schema["components"]["schemas"]["Input"]["properties"]
    assert [f"{model.owner}/{model.name}" for model in client.models.list()] == [MODEL]
    assert len(client.models.search("panorama").results) == 1 and not client.models.search("kittens").results


def case_the_rest():
    assert client.accounts.current().username == MODEL.split("/")[0]
    assert client.hardware.list()[0].sku == "cpu"
    for space in (client.collections, client.deployments, client.trainings):
        assert space.list().results == []


def case_errors():
    error = raises(ReplicateError, lambda: client.predictions.get("none"), "none")
    assert error.status == 404, error
    raises(ReplicateError, lambda: client.models.get("no/model"), MODEL)
    error = raises(ReplicateError, lambda: client.run(MODEL, input={"width": 5}), "input.width", "prompt is required")
    assert error.status == 422, error
    raises(ReplicateError, lambda: client.predictions.create(version="0" * 64, input=QUICK), "version")
    for call in (lambda: client.models.create("a", "b", hardware="cpu", visibility="public"), lambda: client.collections.get("x")):
        assert raises(ReplicateError, call).status == 404
    unknown = client.run(MODEL, input={**QUICK, "aspect_ratio": "16:9", "go_fast": True})
    assert unknown.read().startswith(PNG)


def case_tokens():
    for token in (None, "wrong"):
        stranger = replicate.Client(base_url=URL, api_token=token)
        if TOKEN:
            error = raises(ReplicateError, lambda: stranger.run(MODEL, input=QUICK))
            assert (error.status, error.title) == (401, "Unauthenticated"), error
        else:
            assert stranger.run(MODEL, input=QUICK).read().startswith(PNG)


def case_files():
    path = SCRATCH / "hello.txt"
    path.write_text("hello")
    file = client.files.create(path, metadata={"a": 1})
    assert (file.name, file.content_type, file.size, file.metadata) == ("hello.txt", "text/plain", 5, {"a": 1}), file
    assert client.files.get(file.id).urls == file.urls
    assert file.id in [file.id for file in client.files.list()]
    if OTHER:
        other = replicate.Client(base_url=URL, api_token=OTHER)
        assert raises(ReplicateError, lambda: other.files.get(file.id)).status == 404
        assert other.files.list() == []
    assert client.files.delete(file.id)
    assert raises(ReplicateError, lambda: client.files.get(file.id)).status == 404
    with path.open("rb") as opened:
        assert client.run(MODEL, input={**QUICK, "unknown_file": opened}).read().startswith(PNG)


def case_a_picture_as_input():
    path = SCRATCH / "picture.png"
    path.write_bytes(client.run(MODEL, input={**QUICK, "width": 1024}).read())
    for strategy in ("url", "base64"):
        with path.open("rb") as opened:
            output = client.run(MODEL, input={**QUICK, "image": opened}, file_encoding_strategy=strategy)
            assert output.read().startswith(PNG), strategy
    uploaded = client.files.create(path)
    prediction = client.predictions.create(version=VERSION, input={**QUICK, "image": uploaded.urls["get"]}, wait=True)
    assert prediction.status == "succeeded", prediction.error
    if OTHER:
        other = replicate.Client(base_url=URL, api_token=OTHER)
        theirs = raises(ReplicateError, lambda: other.run(MODEL, input={**QUICK, "image": uploaded.urls["get"]}), "image")
        assert theirs.status == 422, theirs


class Receiver(http.server.ThreadingHTTPServer):
    """Keeps every webhook."""

    def __init__(self):
        self.sent = queue.Queue()
        super().__init__(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.serve_forever, daemon=True).start()


class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"])).decode()
        self.server.sent.put(({name.lower(): value for name, value in self.headers.items()}, body))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_):
        pass


def case_webhooks():
    secret = client.webhooks.default.secret()
    receiver = Receiver()
    url = f"http://127.0.0.1:{receiver.server_address[1]}/"
    prediction = client.predictions.create(version=VERSION, input=QUICK, webhook=url, webhook_events_filter=["start", "completed"])
    sent = [receiver.sent.get(timeout=30) for _ in range(2)]
    for headers, body in sent:
        Webhooks.validate(headers=headers, body=body, secret=secret)
    told = replicate.prediction.Prediction.parse_raw(sent[-1][1])
    assert (told.id, told.status, told.model) == (prediction.id, "succeeded", MODEL)
    assert httpx.get(told.output).content.startswith(PNG)
    # Before there was a filter.
    client.predictions.create(version=VERSION, input=QUICK, webhook_completed=url)
    assert '"status":"succeeded"' in receiver.sent.get(timeout=30)[1]


cases.run(globals())
