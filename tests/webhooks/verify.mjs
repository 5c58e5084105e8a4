// Reads webhooks as lines of JSON, and writes for each whether Replicate's JavaScript client takes it.

import { createInterface } from "node:readline";
import replicate from "replicate";

for await (const line of createInterface({ input: process.stdin })) {
  const { headers, body, secret } = JSON.parse(line);
  const valid = await replicate.validateWebhook({
    id: headers["webhook-id"],
    timestamp: headers["webhook-timestamp"],
    signature: headers["webhook-signature"],
    body,
    secret,
  });
  console.log(JSON.stringify(valid));
}
