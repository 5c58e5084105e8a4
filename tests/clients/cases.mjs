// What the clients in JavaScript share: their environment, and a runner of cases.

export const { URL: ADDRESS, TOKEN, OTHER, MODEL, SCRATCH } = process.env;

/** Calls every function of an object, and exits with 1 if one of them throws. */
export async function run(cases) {
  let wrong = 0;
  for (const [name, check] of Object.entries(cases)) {
    try {
      await check();
    } catch (error) {
      wrong += 1;
      console.log(`--- ${name}`);
      console.log(error);
    }
  }
  console.log(`${Object.keys(cases).length} cases, ${wrong} wrong`);
  process.exit(wrong === 0 ? 0 : 1);
}

/** Whether bytes are a PNG. */
export const isPng = (bytes) => Buffer.from(bytes).subarray(0, 8).equals(Buffer.from("89504e470d0a1a0a", "hex"));
