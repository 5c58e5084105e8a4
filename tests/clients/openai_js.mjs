// OpenAI's JavaScript client 6.49.0.

import assert from "node:assert/strict";
import { createReadStream, existsSync, readFileSync, writeFileSync } from "node:fs";
import OpenAI, { toFile } from "openai";
import { ADDRESS, SCRATCH, TOKEN, isPng, run } from "./cases.mjs";

const QUARTERS = new URL("../pictures/quarters.png", import.meta.url);
let sent = [];

/** A client that notes every request that it sends. */
function client(more = {}) {
  sent = [];
  const noted = (url, init) => {
    sent.push(new Headers(init.headers).get("x-stainless-retry-count"));
    return fetch(url, init);
  };
  return new OpenAI({ baseURL: `${ADDRESS}/v1`, apiKey: TOKEN || "none", fetch: noted, ...more });
}

const bytes = (image) => Buffer.from(image.b64_json, "base64");

function size(png) {
  assert.ok(isPng(png));
  return `${png.readUInt32BE(16)}x${png.readUInt32BE(20)}`;
}

async function predictions() {
  const headers = { authorization: `Bearer ${TOKEN}` };
  return (await (await fetch(`${ADDRESS}/predictions?limit=100`, { headers })).json()).results;
}

await run({
  async pictures() {
    const extra = { negative_prompt: "fog", seed: 5, num_inference_steps: 1 };
    const answer = await client().images.generate({ prompt: "a lake", n: 2, size: "1000x600", ...extra });
    assert.deepEqual(answer.data.map((image) => image.seed), [5, 6]);
    assert.deepEqual(answer.data.map((image) => size(bytes(image))), ["1000x600", "1000x600"]);
    assert.equal(answer.usage.output_tokens, 2 * 586);
    assert.ok(answer._request_id);
  },

  async whatChatProgramsSend() {
    const request = { model: "gpt-image-1", prompt: "a", background: "auto", quality: "low", size: "auto" };
    const answer = await client().images.generate({ ...request, output_format: "png" });
    assert.equal(size(bytes(answer.data[0])), "2048x512");
    assert.equal(answer.quality, "low");
  },

  async urlsOpenWithoutAToken() {
    const request = { model: "dall-e-2", prompt: "a", size: "600x520", num_inference_steps: 1 };
    const answer = await client().images.generate(request);
    const file = await fetch(answer.data[0].url);
    assert.equal(size(Buffer.from(await file.arrayBuffer())), "600x520");
  },

  async partialImages() {
    const go = `${SCRATCH}/go`;
    const request = { prompt: `until=${go}`, stream: true, partial_images: 1, num_inference_steps: 2 };
    const stream = await client().images.generate(request);
    const kinds = [];
    for await (const event of stream) {
      kinds.push(event.type);
      assert.ok(isPng(bytes(event)));
      if (!existsSync(go)) {
        writeFileSync(go, "");
      }
    }
    assert.deepEqual(kinds, ["image_generation.partial_image", "image_generation.completed"]);
  },

  async aStreamThatFails() {
    const stream = await client().images.generate({ prompt: "fail", stream: true, num_inference_steps: 2 });
    const read = async () => {
      for await (const event of stream) {
        assert.notEqual(event.type, "image_generation.completed");
      }
    };
    await assert.rejects(read, (error) => error instanceof OpenAI.APIError && /told to fail/.test(error.message));
  },

  async badRequests() {
    for (const [param, request] of [
      ["size", { size: "256x256" }],
      ["n", { n: 0 }],
      ["prompt", { prompt: null }],
      ["partial_images", { stream: true, partial_images: 4 }],
    ]) {
      const error = await client().images.generate({ prompt: "a", ...request }).catch((error) => error);
      assert.ok(error instanceof OpenAI.BadRequestError, `${error}`);
      assert.equal(error.param, param);
      assert.deepEqual(sent, ["0"]);
    }
  },

  async edits() {
    const file = await toFile(readFileSync(QUARTERS), "a.png", { type: "image/png" });
    for (const image of [createReadStream(QUARTERS), file, [file]]) {
      const extra = { num_inference_steps: 2, seed: 5, prompts: ["a", "b"] };
      const answer = await client().images.edit({ image, prompt: "a lake", n: 2, size: "1000x600", ...extra });
      assert.deepEqual(answer.data.map((image) => [image.seed, size(bytes(image))]), [[5, "1000x600"], [6, "1000x600"]]);
      const made = (await predictions())[0];
      assert.match(made.logs, /given image 900x640/);
      assert.deepEqual(made.input.prompts, ["a", "b"]);
    }
  },

  async aStreamOfEdits() {
    const go = `${SCRATCH}/edit`;
    const request = { image: createReadStream(QUARTERS), prompt: `until=${go}`, stream: true, partial_images: 1 };
    const kinds = [];
    for await (const event of await client().images.edit({ ...request, num_inference_steps: 2 })) {
      kinds.push(event.type);
      assert.ok(isPng(bytes(event)));
      if (!existsSync(go)) {
        writeFileSync(go, "");
      }
    }
    assert.deepEqual(kinds, ["image_edit.partial_image", "image_edit.completed"]);
  },

  async badEdits() {
    const picture = () => createReadStream(QUARTERS);
    for (const [param, more] of [
      ["mask", { mask: picture() }],
      ["image", { image: [picture(), picture()] }],
      ["size", { size: "256x256" }],
    ]) {
      const error = await client().images.edit({ image: picture(), prompt: "a", ...more }).catch((error) => error);
      assert.ok(error instanceof OpenAI.BadRequestError, `${error}`);
      assert.equal(error.param, param);
      assert.deepEqual(sent, ["0"]);
    }
  },

  async otherErrors() {
    const unknown = await client().images.generate({ prompt: "a", model: "sdxl" }).catch((error) => error);
    assert.ok(unknown instanceof OpenAI.NotFoundError && unknown.code === "model_not_found", `${unknown}`);
    const failed = await client().images.generate({ prompt: "fail", num_inference_steps: 2 }).catch((error) => error);
    assert.ok(failed instanceof OpenAI.InternalServerError && failed.code === "failed", `${failed}`);
    assert.deepEqual(sent, ["0"], "it is drawn once");
    if (TOKEN) {
      const refused = await client({ apiKey: "wrong" }).images.generate({ prompt: "a" }).catch((error) => error);
      assert.ok(refused instanceof OpenAI.AuthenticationError && refused.code === "invalid_api_key", `${refused}`);
    }
  },

  async aClientThatWaitsTooShort() {
    const go = `${SCRATCH}/slow`;
    const before = (await predictions()).length;
    const ours = client({ timeout: 2000 });
    const released = (async () => {
      while (!sent.includes("1")) {
        await new Promise((done) => setTimeout(done, 10));
      }
      writeFileSync(go, "");
    })();
    const answer = await ours.images.generate({ prompt: `until=${go}`, size: "512x512", num_inference_steps: 2 });
    await released;
    const after = await predictions();
    assert.equal(after.length, before + 1, "it was drawn once");
    assert.equal(after[0].id, answer.data[0].prediction_id);
  },

  async models() {
    assert.equal((await client().models.retrieve("dall-e-3")).object, "model");
  },
});
