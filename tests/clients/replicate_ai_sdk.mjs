// The AI SDK's provider for Replicate.

import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { createReplicate } from "@ai-sdk/replicate";
import { generateImage } from "ai";
import { ADDRESS, MODEL, SCRATCH, TOKEN, isPng, run } from "./cases.mjs";

const provider = (apiToken) => createReplicate({ baseURL: `${ADDRESS}/v1`, apiToken });
const replicate = provider(TOKEN || "none");
const quick = { providerOptions: { replicate: { num_inference_steps: 2, pollIntervalMillis: 20 } }, maxRetries: 0 };
const answer = await fetch(`${ADDRESS}/v1/models/${MODEL}`, { headers: { authorization: `Bearer ${TOKEN}` } });
const version = (await answer.json()).latest_version.id;

await run({
  async generate() {
    for (const model of [MODEL, `${MODEL}:${version}`]) {
      // Size and aspect ratio are inputs that nobody knows here.
      const { image } = await generateImage({ model: replicate.image(model), prompt: "a", size: "1024x1024", seed: 7, ...quick });
      assert.ok(isPng(image.uint8Array));
    }
  },

  async looksAgainAfterItWasHeldInVain() {
    const gate = `${SCRATCH}/again`;
    setTimeout(() => writeFileSync(gate, ""), 1500);
    const options = { replicate: { ...quick.providerOptions.replicate, maxWaitTimeInSeconds: 1 } };
    const asked = { model: replicate.image(MODEL), prompt: `until=${gate}`, providerOptions: options, maxRetries: 0 };
    assert.ok(isPng((await generateImage(asked)).image.uint8Array));
  },

  async errors() {
    const draw = (provider, prompt, model = MODEL) => generateImage({ model: provider.image(model), prompt, ...quick });
    await assert.rejects(draw(replicate, "fail"), /told to fail/);
    await assert.rejects(draw(replicate, "a", "no/model"), /there is no model `no\/model`/);
    const wide = { replicate: { num_inference_steps: 0 } };
    await assert.rejects(generateImage({ model: replicate.image(MODEL), prompt: "a", providerOptions: wide, maxRetries: 0 }), /num_inference_steps/);
    if (TOKEN) await assert.rejects(draw(provider("wrong"), "a"), /not valid/);
  },
});
