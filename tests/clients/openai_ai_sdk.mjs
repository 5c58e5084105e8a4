// The AI SDK with @ai-sdk/openai-compatible and @ai-sdk/openai.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateImage } from "ai";
import { ADDRESS, TOKEN, isPng, run } from "./cases.mjs";

const QUARTERS = new URL("../pictures/quarters.png", import.meta.url);
const baseURL = `${ADDRESS}/v1`;
const compatible = createOpenAICompatible({ name: "panorama", baseURL, apiKey: TOKEN || undefined });
const openai = createOpenAI({ baseURL, apiKey: TOKEN || "none" });

function size(image) {
  const png = Buffer.from(image.uint8Array);
  assert.ok(isPng(png));
  return `${png.readUInt32BE(16)}x${png.readUInt32BE(20)}`;
}

await run({
  async compatible() {
    const { images } = await generateImage({
      model: compatible.imageModel("syncdiffusion"),
      prompt: "a lake",
      n: 2,
      size: "1000x600",
      providerOptions: { panorama: { seed: 7, num_inference_steps: 1 } },
    });
    assert.deepEqual(images.map(size), ["1000x600", "1000x600"]);
    assert.notEqual(images[0].base64, images[1].base64);
  },

  async urls() {
    const { image } = await generateImage({
      model: compatible.imageModel("dall-e-3"),
      prompt: "a lake",
      size: "600x520",
      providerOptions: { panorama: { num_inference_steps: 1, response_format: "b64_json" } },
    });
    assert.equal(size(image), "600x520");
  },

  async openai() {
    for (const name of ["syncdiffusion", "gpt-image-1"]) {
      const { image } = await generateImage({ model: openai.image(name), prompt: "a lake", size: "512x512" });
      assert.equal(size(image), "512x512");
    }
  },

  async edits() {
    const prompt = { text: "a lake", images: [readFileSync(QUARTERS)] };
    for (const model of [compatible.imageModel("syncdiffusion"), openai.image("gpt-image-1")]) {
      const { image } = await generateImage({ model, prompt, size: "1000x600" });
      assert.equal(size(image), "1000x600");
    }
    const masked = { ...prompt, mask: readFileSync(QUARTERS) };
    const request = { model: compatible.imageModel("syncdiffusion"), prompt: masked, maxRetries: 0 };
    await assert.rejects(generateImage(request), /leave `mask` out/);
  },

  async errors() {
    const request = { model: compatible.imageModel("syncdiffusion"), prompt: "a", size: "256x256", maxRetries: 0 };
    await assert.rejects(generateImage(request), /512x512/);
    const failing = { model: compatible.imageModel("syncdiffusion"), prompt: "fail", maxRetries: 0 };
    await assert.rejects(generateImage(failing), /told to fail/);
  },
});
