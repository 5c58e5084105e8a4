"""Replicate's Python client 1.0.7."""

import cases
import replicate

client = replicate.Client(base_url=cases.URL, api_token=cases.TOKEN or None)


def case_the_secret_of_webhooks():
    assert client.webhooks.default.secret().key.startswith("whsec_")


cases.run(globals())
