"""The wrapper of LangChain's community package 0.4.2. It knows URLs only."""

import struct
import urllib.request

import cases
import openai
from langchain_community.utilities.dalle_image_generator import DallEAPIWrapper


def wrapper(**more):
    return DallEAPIWrapper(base_url=f"{cases.URL}/v1", api_key=cases.TOKEN or "none", max_retries=0, **more)


def size(url):
    with urllib.request.urlopen(url) as file:
        png = file.read()
    assert png.startswith(cases.PNG)
    return struct.unpack(">II", png[16:24])


def case_every_picture_has_a_url():
    urls = wrapper(n=2, size="1000x600", quality="low").run("a lake").split("\n")
    assert len(set(urls)) == 2 and [size(url) for url in urls] == [(1000, 600)] * 2


def case_its_defaults():
    assert size(wrapper().run("a lake")) == (1024, 1024)


def case_errors():
    cases.raises(openai.BadRequestError, lambda: wrapper(size="256x256").run("a"), "512x512")


cases.run(globals())
