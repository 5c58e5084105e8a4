"""LiteLLM 1.110.2."""

import base64
import struct

import cases
import litellm

litellm.suppress_debug_info = True


def generate(**more):
    return litellm.image_generation(
        model="openai/syncdiffusion", api_base=f"{cases.URL}/v1", api_key=cases.TOKEN or "none", max_retries=0, **more
    )


def size(image):
    png = base64.b64decode(image.b64_json, validate=True)
    assert png.startswith(cases.PNG)
    return struct.unpack(">II", png[16:24])


def case_pictures():
    answer = generate(prompt="a lake", n=2, size="1000x600", extra_body={"num_inference_steps": 1, "seed": 3})
    assert [size(image) for image in answer.data] == [(1000, 600)] * 2
    assert answer.data[0].b64_json != answer.data[1].b64_json


def case_what_it_passes_on():
    answer = generate(prompt="a", quality="low", size="auto", user="u", extra_body={"preset": "fast"})
    assert size(answer.data[0]) == (2048, 512)


def case_edits():
    for image in [open(cases.PICTURES / "quarters.png", "rb"), (cases.PICTURES / "quarters.png").read_bytes()]:
        answer = litellm.image_edit(
            model="openai/syncdiffusion", image=image, prompt="a lake", size="1000x600", n=2,
            api_base=f"{cases.URL}/v1", api_key=cases.TOKEN or "none", extra_body={"num_inference_steps": 2, "seed": 3},
        )  # fmt: skip
        assert [size(image) for image in answer.data] == [(1000, 600)] * 2


def case_errors():
    error = cases.raises(litellm.BadRequestError, lambda: generate(prompt="a", size="256x256"), "512x512")
    assert error.status_code == 400
    failed = lambda: generate(prompt="fail", extra_body={"num_inference_steps": 2})
    cases.raises(litellm.InternalServerError, failed, "told to fail")
    if cases.TOKEN:
        wrong = lambda: litellm.image_generation(
            model="openai/syncdiffusion", prompt="a", api_base=f"{cases.URL}/v1", api_key="wrong", max_retries=0
        )
        cases.raises(litellm.AuthenticationError, wrong)


cases.run(globals())
