// Replicate's JavaScript client 1.4.0.

import assert from "node:assert/strict";
import { createServer } from "node:http";
import { writeFileSync } from "node:fs";
import Replicate, { validateWebhook } from "replicate";
import { ADDRESS, MODEL, OTHER, SCRATCH, TOKEN, isPng, run } from "./cases.mjs";

const client = (auth) => new Replicate({ baseUrl: `${ADDRESS}/v1`, auth });
const replicate = client(TOKEN || "none");
const quick = { prompt: "a", num_inference_steps: 2 };
const [owner, name] = MODEL.split("/");
const version = (await replicate.models.get(owner, name)).latest_version.id;
const gated = (gate) => ({ prompt: `until=${SCRATCH}/${gate}`, num_inference_steps: 2 });
const open = (gate) => writeFileSync(`${SCRATCH}/${gate}`, "");
const bytes = async (file) => new Uint8Array(await (await file.blob()).arrayBuffer());

await run({
  async run() {
    for (const reference of [MODEL, `${MODEL}:${version}`]) {
      assert.ok(isPng(await bytes(await replicate.run(reference, { input: quick }))));
    }
    const seen = [];
    await replicate.run(MODEL, { input: quick, wait: { mode: "poll", interval: 20 } }, ({ status }) => seen.push(status));
    assert.equal(seen.at(-1), "succeeded");
  },

  async runLooksAgainAfterItWasHeldInVain() {
    setTimeout(() => open("again"), 1500);
    const output = await replicate.run(MODEL, { input: gated("again"), wait: { mode: "block", timeout: 1, interval: 50 } });
    assert.ok(isPng(await bytes(output)));
  },

  async runFails() {
    await assert.rejects(replicate.run(MODEL, { input: { prompt: "fail" } }), /told to fail/);
  },

  async runIsAborted() {
    const abort = new AbortController();
    let id;
    const waits = { mode: "poll", interval: 20 };
    const output = await replicate.run(MODEL, { input: gated("never"), wait: waits, signal: abort.signal }, (prediction) => {
      id = prediction.id;
      abort.abort();
    });
    assert.ok(output === null || output === undefined, String(output));
    assert.equal((await replicate.predictions.get(id)).status, "canceled");
  },

  async createGetWaitCancel() {
    let prediction = await replicate.predictions.create({ version, input: gated("wait") });
    assert.equal(prediction.status, "starting");
    assert.equal((await replicate.predictions.get(prediction.id)).id, prediction.id);
    open("wait");
    prediction = await replicate.wait(prediction, { interval: 20 });
    assert.equal(prediction.status, "succeeded");
    const never = await replicate.predictions.create({ model: MODEL, input: gated("never") });
    assert.equal((await replicate.predictions.cancel(never.id)).status, "canceled");
    const held = await replicate.predictions.create({ model: MODEL, input: quick, wait: 30 });
    assert.equal(held.status, "succeeded");
  },

  async listAndPaginate() {
    for (let n = 0; n < 101; n++) await replicate.predictions.create({ version, input: quick, wait: true });
    const pages = [];
    for await (const page of replicate.paginate(replicate.predictions.list)) pages.push(page);
    const ids = pages.flat().map(({ id }) => id);
    assert.ok(pages.length > 1 && pages[0].length === 100 && new Set(ids).size === ids.length);
    assert.ok(isPng(await (await fetch(pages[0][0].output)).arrayBuffer()));
  },

  async stream() {
    const events = [];
    for await (const event of replicate.stream(MODEL, { input: quick })) events.push(event);
    assert.deepEqual(events.slice(-2).map(({ event }) => event), ["output", "done"]);
    // A file, because of where the stream is.
    assert.ok(isPng(await bytes(events.at(-2).data)));
    const late = await replicate.predictions.create({ version, input: quick, wait: true });
    const text = await (await fetch(late.urls.stream)).text();
    assert.match(text, /event: output[^]*event: done\n/);
    await assert.rejects(async () => {
      for await (const _ of replicate.stream(MODEL, { input: { prompt: "fail" } }));
    }, /told to fail/);
  },

  async models() {
    const model = await replicate.models.get(owner, name);
    assert.equal(`${model.owner}/${model.name}`, MODEL);
    assert.deepEqual((await replicate.models.versions.list(owner, name)).results.map(({ id }) => id), [version]);
    assert.equal((await replicate.models.versions.get(owner, name, version)).id, version);
    assert.equal((await replicate.models.list()).results.length, 1);
    assert.equal((await replicate.models.search("panorama")).results.length, 1);
    assert.equal((await replicate.models.search("kittens")).results.length, 0);
  },

  async theRest() {
    assert.equal((await replicate.accounts.current()).username, owner);
    assert.equal((await replicate.hardware.list())[0].sku, "cpu");
    for (const space of [replicate.collections, replicate.deployments, replicate.trainings]) {
      assert.deepEqual((await space.list()).results, []);
    }
  },

  async errors() {
    const status = (wanted) => ({ response }) => (assert.equal(response.status, wanted), true);
    await assert.rejects(replicate.predictions.get("none"), status(404));
    await assert.rejects(replicate.run(MODEL, { input: { width: 5 } }), /prompt is required/);
    await assert.rejects(replicate.models.get("no", "model"), status(404));
    if (TOKEN) await assert.rejects(client("wrong").run(MODEL, { input: quick }), status(401));
  },

  async files() {
    const file = await replicate.files.create(new File(["hello"], "hello.txt", { type: "text/plain" }), { a: 1 });
    assert.deepEqual([file.name, file.content_type, file.size, file.metadata], ["hello.txt", "text/plain", 5, { a: 1 }]);
    assert.equal((await replicate.files.get(file.id)).id, file.id);
    assert.ok((await replicate.files.list()).results.some(({ id }) => id === file.id));
    if (OTHER) await assert.rejects(client(OTHER).files.get(file.id), ({ response }) => response.status === 404);
    assert.equal(await replicate.files.delete(file.id), true);
    await assert.rejects(replicate.files.get(file.id), ({ response }) => response.status === 404);
    const output = await replicate.run(MODEL, { input: { ...quick, unknown_file: Buffer.from("hello") } });
    assert.ok(isPng(await bytes(output)));
  },

  async aPictureAsInput() {
    const picture = await (await replicate.run(MODEL, { input: { ...quick, width: 1024 } })).blob();
    const output = await replicate.run(MODEL, { input: { ...quick, image: new File([picture], "a.png") } });
    assert.ok(isPng(await bytes(output)));
  },

  async webhooks() {
    const { key } = await replicate.webhooks.default.secret.get();
    const sent = await new Promise(async (resolve) => {
      const server = createServer(async (request, response) => {
        const body = Buffer.concat(await request.toArray()).toString();
        response.end();
        server.close();
        resolve({ headers: request.headers, body });
      });
      await new Promise((ready) => server.listen(0, "127.0.0.1", ready));
      const webhook = `http://127.0.0.1:${server.address().port}/`;
      await replicate.predictions.create({ version, input: quick, webhook, webhook_events_filter: ["completed"] });
    });
    const given = {
      id: sent.headers["webhook-id"],
      timestamp: sent.headers["webhook-timestamp"],
      signature: sent.headers["webhook-signature"],
      secret: key,
    };
    assert.equal(await validateWebhook({ ...given, body: sent.body }), true);
    assert.equal(await validateWebhook({ ...given, body: `${sent.body} ` }), false);
    const told = JSON.parse(sent.body);
    assert.deepEqual([told.status, told.model, told.version], ["succeeded", MODEL, version]);
  },
});
