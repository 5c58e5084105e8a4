"""Replicate's Python client 2.0.0b4."""

import os

import cases
import replicate
from cases import MODEL, OTHER, PNG, SCRATCH, TOKEN, URL, raises
from replicate import Replicate

os.environ["REPLICATE_POLL_INTERVAL"] = "0.05"
# It does without no token.
client = Replicate(base_url=f"{URL}/v1", bearer_token=TOKEN or "none")
QUICK = {"prompt": "a", "num_inference_steps": 2}
OWNER, NAME = MODEL.split("/")
VERSION = client.models.get(model_owner=OWNER, model_name=NAME).latest_version.id


def case_run():
    for reference in (MODEL, f"{MODEL}:{VERSION}"):
        assert client.run(reference, input=QUICK).read().startswith(PNG)
    assert client.run(MODEL, input=QUICK, wait=False).read().startswith(PNG)


def case_run_looks_again_after_it_was_held_in_vain():
    import threading

    gate = SCRATCH / "again"
    threading.Timer(1.5, gate.touch).start()
    assert client.run(MODEL, input={"prompt": f"until={gate}", "num_inference_steps": 2}, wait=1).read().startswith(PNG)


def case_run_fails():
    raises(Exception, lambda: client.run(MODEL, input={"prompt": "fail"}), "told to fail")


def case_use():
    os.environ["REPLICATE_BASE_URL"], os.environ["REPLICATE_API_TOKEN"] = f"{URL}/v1", TOKEN or "none"
    draw = replicate.use(MODEL)
    assert draw(**QUICK)


def case_create_get_wait_cancel():
    gate = SCRATCH / "wait"
    given = {"prompt": f"until={gate}", "num_inference_steps": 2}
    prediction = client.predictions.create(version=VERSION, input=given)
    assert (prediction.status, prediction.model, prediction.data_removed) == ("starting", MODEL, False)
    assert prediction.urls.web and prediction.urls.stream
    gate.touch()
    prediction = client.predictions.wait(prediction.id)
    assert prediction.status == "succeeded" and prediction.metrics.total_time >= 0, prediction
    never = client.models.predictions.create(model_owner=OWNER, model_name=NAME, input={"prompt": f"until={SCRATCH / 'never'}"})
    canceled = client.predictions.cancel(prediction_id=never.id)
    assert canceled.status == "canceled" and client.predictions.get(prediction_id=never.id).status == "canceled"
    late = client.predictions.create(version=VERSION, input=QUICK, extra_headers={"Cancel-After": "1m"})
    assert late.deadline is not None


def case_list():
    first = client.predictions.create(version=VERSION, input=QUICK, prefer="wait")
    second = client.predictions.create(version=VERSION, input=QUICK, prefer="wait")
    third = client.predictions.create(version=VERSION, input=QUICK, prefer="wait")
    assert [prediction.id for prediction in client.predictions.list()][:3] == [third.id, second.id, first.id]
    found = client.predictions.list(created_after=second.created_at, created_before=third.created_at)
    assert [prediction.id for prediction in found] == [second.id]


def case_models():
    assert [version.id for version in client.models.versions.list(model_owner=OWNER, model_name=NAME)] == [VERSION]
    version = client.models.versions.get(model_owner=OWNER, model_name=NAME, version_id=VERSION)
    assert version.openapi_schema["components"]["schemas"]["Output"]["type"] == "string"
    assert [model.name for model in client.models.list()] == [NAME]
    assert [model.name for model in client.models.search(body="panorama")] == [NAME]
    assert list(client.models.examples.list(model_owner=OWNER, model_name=NAME)) == []
    assert NAME in client.models.readme.get(model_owner=OWNER, model_name=NAME)
    assert client.search(query="panorama").models[0].model.name == NAME


def case_the_rest():
    assert client.account.get().username == OWNER
    assert client.hardware.list()[0].sku == "cpu"
    assert client.webhooks.default.secret.get().key.startswith("whsec_")
    for space in (client.collections, client.deployments, client.trainings):
        assert list(space.list()) == []


def case_errors():
    raises(replicate.NotFoundError, lambda: client.predictions.get(prediction_id="none"), "none")
    error = raises(replicate.UnprocessableEntityError, lambda: client.run(MODEL, input={"width": 5}))
    assert error.body["invalid_fields"][-1] == {"type": "required", "field": "input", "description": "prompt is required"}
    raises(replicate.NotFoundError, lambda: client.collections.get(collection_slug="x"))
    stranger = Replicate(base_url=f"{URL}/v1", bearer_token="wrong")
    if TOKEN:
        raises(replicate.AuthenticationError, lambda: stranger.run(MODEL, input=QUICK))
    else:
        assert stranger.run(MODEL, input=QUICK).read().startswith(PNG)


def case_files():
    file = client.files.create(content=("hello.txt", b"hello", "text/plain"))
    assert (file.name, file.size) == ("hello.txt", 5) and file.checksums.sha256.startswith("2cf24dba")
    assert client.files.get(file_id=file.id).id == file.id and file.id in [file.id for file in client.files.list()]
    if OTHER:
        other = Replicate(base_url=f"{URL}/v1", bearer_token=OTHER)
        raises(replicate.NotFoundError, lambda: other.files.get(file_id=file.id))
    client.files.delete(file_id=file.id)
    raises(replicate.NotFoundError, lambda: client.files.get(file_id=file.id))


cases.run(globals())
