// Replicate's JavaScript client 1.4.0.

import assert from "node:assert/strict";
import Replicate from "replicate";
import { ADDRESS, TOKEN, run } from "./cases.mjs";

const replicate = new Replicate({ baseUrl: `${ADDRESS}/v1`, auth: TOKEN || "none" });

await run({
  async theSecretOfWebhooks() {
    const { key } = await replicate.webhooks.default.secret.get();
    assert.ok(key.startsWith("whsec_"));
  },
});
