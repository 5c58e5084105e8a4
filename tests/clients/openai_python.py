"""OpenAI's Python client 3.57.0, which checks every answer strictly."""

import base64
import json
import struct
import threading
import time
import urllib.error
import urllib.request

import cases
import httpx2
import openai
from openai import OpenAI, omit

QUARTERS = cases.PICTURES / "quarters.png"
SMALL = {"size": "512x512", "extra_body": {"num_inference_steps": 1}}
sent = []


def client(**more):
    """A client that notes every request that it sends."""
    sent.clear()

    def note(request):
        if request.url.path.endswith(("/generations", "/edits")):
            sent.append(request.headers["x-stainless-retry-count"])

    http = httpx2.Client(event_hooks={"request": [note]}, trust_env=False)
    more = {"api_key": cases.TOKEN or "none", **more}
    return OpenAI(base_url=f"{cases.URL}/v1", http_client=http, _strict_response_validation=True, **more)


def ask(path, body=None, **headers):
    """The server's own API, beside the client."""
    headers |= {"authorization": f"Bearer {cases.TOKEN}", "content-type": "application/json"}
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(cases.URL + path, data, headers)) as answer:
        return json.load(answer)


def size(png):
    assert png.startswith(cases.PNG)
    return struct.unpack(">II", png[16:24])


def picture(image):
    return base64.b64decode(image.b64_json, validate=True)


def case_a_panorama():
    answer = client().images.generate(prompt="a lake", extra_body={"num_inference_steps": 2, "negative_prompt": "fog"})
    assert size(picture(answer.data[0])) == (2048, 512) and answer.size == "2048x512"
    assert answer.data[0].url is None and answer.usage.output_tokens == 1024
    prediction = ask(f"/predictions/{answer.data[0].prediction_id}")
    assert prediction["input"]["negative_prompt"] == "fog" and prediction["input"]["seed"] == answer.data[0].seed
    assert answer._request_id


def case_what_chat_programs_send():
    answer = client().images.generate(
        model="gpt-image-1", prompt="a", n=1, background="auto", quality="auto", size="auto", output_format="png",
        moderation="low", user="u", extra_body={"num_inference_steps": 1},
    )  # fmt: skip
    assert size(picture(answer.data[0])) == (2048, 512)


def case_exact_sizes_and_seeds_in_a_row():
    answer = client().images.generate(prompt="a", size="1000x600", n=3, extra_body={"seed": 5, "num_inference_steps": 1})
    assert [image.seed for image in answer.data] == [5, 6, 7]
    assert [size(picture(image)) for image in answer.data] == [(1000, 600)] * 3
    assert len({image.b64_json for image in answer.data}) == 3


def case_urls_open_without_a_token():
    answer = client().images.generate(model="dall-e-3", prompt="a", size="600x520", extra_body={"num_inference_steps": 1})
    assert answer.data[0].b64_json is None and answer.data[0].url.startswith(cases.URL)
    with urllib.request.urlopen(answer.data[0].url) as file:
        assert size(file.read()) == (600, 520)


def case_partial_images():
    go = cases.SCRATCH / "go"
    stream = client().images.generate(
        prompt=f"until={go}", stream=True, partial_images=2, size="600x512", extra_body={"num_inference_steps": 3}
    )
    events = []
    for event in stream:
        events.append(event)
        go.touch()
    kinds = [event.type for event in events]
    assert kinds[-1] == "image_generation.completed" and "image_generation.partial_image" in kinds, kinds
    assert [event.partial_image_index for event in events[:-1]] == list(range(len(events) - 1))
    assert all(picture(event).startswith(cases.PNG) for event in events)
    assert size(picture(events[-1])) == (600, 512) and events[-1].usage.total_tokens > 300


def case_a_stream_that_fails():
    stream = client().images.generate(prompt="fail", stream=True, extra_body={"num_inference_steps": 2})
    error = cases.raises(openai.APIError, lambda: list(stream), "told to fail")
    assert error.code == "failed" and error.type == "server_error"
    # A bad request is refused before the stream begins.
    cases.raises(openai.BadRequestError, lambda: client().images.generate(prompt="a", stream=True, size="1x1"))


def case_bad_requests():
    for param, code, arguments in [
        ("size", "invalid_value", {"size": "256x256"}),
        ("n", "invalid_value", {"n": 11}),
        ("background", "invalid_value", {"background": "transparent"}),
        ("output_format", "invalid_value", {"output_format": "gif"}),
        ("guidance_scale", "invalid_value", {"extra_body": {"guidance_scale": 99}}),
        ("prompt", "missing_required_parameter", {"prompt": None}),
    ]:
        ours = client()
        call = lambda ours=ours, arguments=arguments: ours.images.generate(**{"prompt": "a"} | arguments)
        error = cases.raises(openai.BadRequestError, call)
        assert (error.param, error.code, error.type) == (param, code, "invalid_request_error"), error
        assert sent == ["0"], "not tried again"
        assert error.request_id


def logs(image):
    return ask(f"/predictions/{image.prediction_id}")["logs"]


def case_edits():
    for image in [QUARTERS, ("a.png", QUARTERS.read_bytes(), "image/png"), [QUARTERS.open("rb")]]:
        answer = client().images.edit(
            model="gpt-image-1", image=image, prompt="a lake", n=2, size="auto", input_fidelity="high", quality=omit,
            extra_body={"num_inference_steps": 4, "seed": 5, "image_left": 8, "prompts": ["a", "b"]},
        )  # fmt: skip
        assert [image.seed for image in answer.data] == [5, 6] and size(picture(answer.data[0])) == (2048, 512)
        prediction = ask(f"/predictions/{answer.data[0].prediction_id}")
        assert "given image 48x32 130,125,130" in prediction["logs"]
        told = prediction["input"]
        assert told["prompts"] == ["a", "b"] and told["image_left"] == 8 and told.get("strength") is None


def case_an_edit_of_the_whole_picture():
    answer = client().images.edit(
        image=QUARTERS, prompt="a", size="900x600", output_format="jpeg", extra_body={"num_inference_steps": 4}
    )
    assert picture(answer.data[0]).startswith(b"\xff\xd8") and "given image 1024x640" in logs(answer.data[0])
    told = ask(f"/predictions/{answer.data[0].prediction_id}")["input"]
    assert told["strength"] == 0.75, "it is drawn again"
    less = client().images.edit(image=QUARTERS, prompt="a", size="768x512", extra_body={"strength": 0.3})
    assert ask(f"/predictions/{less.data[0].prediction_id}")["input"]["strength"] == 0.3


def case_a_key():
    headers = {"Idempotency-Key": "an edit"}
    draw = lambda prompt: client().images.edit(
        image=QUARTERS, prompt=prompt, extra_headers=headers, extra_body={"num_inference_steps": 2}
    )
    first, again = draw("a"), draw("a")
    assert first.data[0].prediction_id == again.data[0].prediction_id and first.data == again.data
    error = cases.raises(openai.BadRequestError, lambda: draw("b"), "Idempotency-Key")
    assert error.code == "key_used"


def case_a_stream_of_edits():
    go = cases.SCRATCH / "edit"
    stream = client().images.edit(
        image=QUARTERS, prompt=f"until={go}", stream=True, partial_images=1, extra_body={"num_inference_steps": 2}
    )
    kinds = []
    for event in stream:
        kinds.append(event.type)
        assert picture(event).startswith(cases.PNG)
        go.touch()
    assert kinds == ["image_edit.partial_image", "image_edit.completed"], kinds


def case_bad_edits():
    for param, arguments, word in [
        ("mask", {"mask": QUARTERS}, "leave `mask` out"),
        ("image", {"image": [QUARTERS, QUARTERS]}, "2 pictures"),
        ("image", {"image": ("a.gif", b"GIF89a", "image/gif")}, "GIF"),
        ("size", {"size": "256x256"}, "512x512"),
    ]:
        ours = client()
        call = lambda ours=ours, arguments=arguments: ours.images.edit(**{"image": QUARTERS, "prompt": "a"} | arguments)
        error = cases.raises(openai.BadRequestError, call, word)
        assert (error.param, error.code) == (param, "invalid_value") and sent == ["0"], error
    failed = client()
    call = lambda: failed.images.edit(image=QUARTERS, prompt="fail", extra_body={"num_inference_steps": 2})
    cases.raises(openai.InternalServerError, call, "told to fail")
    assert sent == ["0"]


def case_an_edit_of_a_client_that_waits_too_short():
    go = cases.SCRATCH / "slow_edit"

    def release():
        while "1" not in sent:
            time.sleep(0.01)
        go.touch()

    ours, before = client(timeout=2.0), ask("/predictions?limit=1")["results"][0]["id"]
    threading.Thread(target=release, daemon=True).start()
    answer = ours.images.edit(image=QUARTERS, prompt=f"until={go}", extra_body={"num_inference_steps": 2})
    newest = [prediction["id"] for prediction in ask("/predictions?limit=2")["results"]]
    assert newest == [answer.data[0].prediction_id, before], "it was drawn once"


def case_no_token_and_a_wrong_one():
    if cases.TOKEN:
        for key in ("wrong", "none"):
            ours = client(api_key=key)
            error = cases.raises(openai.AuthenticationError, lambda ours=ours: ours.images.generate(prompt="a"))
            assert error.code == "invalid_api_key" and sent == ["0"]


def case_unknown_names():
    ours = client()
    error = cases.raises(openai.NotFoundError, lambda: ours.images.generate(prompt="a", model="gpt-4o"), "gpt-4o")
    assert (error.code, error.param) == ("model_not_found", "model") and sent == ["0"]
    error = cases.raises(openai.NotFoundError, lambda: ours.models.retrieve("gpt-4o"))
    assert error.code == "model_not_found"
    error = cases.raises(openai.NotFoundError, lambda: ours.post("/images/variations", cast_to=object))
    assert error.code == "unknown_url"


def case_models():
    assert client().models.retrieve("gpt-image-1").id == "gpt-image-1"


def case_a_failed_job_is_drawn_once():
    ours = client()
    call = lambda: ours.images.generate(prompt="fail", extra_body={"num_inference_steps": 2})
    error = cases.raises(openai.InternalServerError, call, "told to fail")
    assert error.code == "failed" and sent == ["0"]


def case_a_full_queue():
    go, ids = cases.SCRATCH / "full", []
    try:
        while True:
            body = {"input": {"prompt": f"until={go}", "num_inference_steps": 2}}
            ids.append(ask("/predictions", body, prefer="respond-async")["id"])
    except urllib.error.HTTPError as full:
        assert full.code == 429
    ours = client(max_retries=0)
    error = cases.raises(openai.RateLimitError, lambda: ours.images.generate(prompt="a"))
    assert error.code == "rate_limit_exceeded" and int(error.response.headers["retry-after"]) > 0
    for prediction in ids:
        ask(f"/predictions/{prediction}/cancel", {})
    go.touch()
    # Whoever tries again as told is drawn.
    assert client().images.generate(prompt="a", **SMALL).data


def case_a_client_that_waits_too_short():
    go = cases.SCRATCH / "slow"
    ours, before = client(timeout=2.0), ask("/predictions?limit=1")["results"][0]["id"]

    def release():
        while "1" not in sent:
            time.sleep(0.01)
        go.touch()

    threading.Thread(target=release, daemon=True).start()
    answer = ours.images.generate(prompt=f"until={go}", size="512x512", extra_body={"num_inference_steps": 2})
    assert sent[:2] == ["0", "1"] and size(picture(answer.data[0])) == (512, 512)
    newest = [prediction["id"] for prediction in ask("/predictions?limit=2")["results"]]
    assert newest == [answer.data[0].prediction_id, before], "it was drawn once"


cases.run(globals())
