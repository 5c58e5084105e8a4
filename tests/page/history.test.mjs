// The history: it is the server's, survives everything, and gives everything back.

import assert from "node:assert/strict"
import { test } from "node:test"
import { draw, open, serve, shot, tile, until } from "./harness.mjs"

test("the history is that of the server, for every browser, page after page", async t => {
	const server = await serve()
	for (let at = 0; at < 60; at += 1)
		await server.draw({ prompt: `number ${at} of many`, width: 512, num_inference_steps: 1, sync_threshold: 0 })
	const page = await open(t, server.url)
	await tile(page, "number 59 of").waitFor()
	assert.ok((await page.locator(".tile").count()) < 60, "not all at once")
	await until("the end is reached", async () => {
		await page.locator("#history-end").scrollIntoViewIfNeeded()
		return (await page.locator(".tile").count()) === 60
	})
	await page.getByText("60 pictures").waitFor()
	const first = tile(page, "number 0 of")
	await first.locator(".open").click()
	await page.locator("#viewer.filled").waitFor()
	await page.locator("#stage").getByText("number 0 of many").waitFor()
	assert.match(page.url(), /#pred_/)
	const other = await open(t, page.url())
	await other.locator("#stage").getByText("number 0 of many").waitFor()
	await server.draw({ prompt: "from elsewhere", width: 512, num_inference_steps: 1, sync_threshold: 0 })
	await tile(other, "from elsewhere").waitFor()
})

test("filters find by status and by text", async t => {
	const server = await serve()
	await server.draw({ prompt: "a lighthouse" })
	await server.draw({ prompt: "a windmill" })
	await server.draw({ prompt: "broken fail" })
	const page = await open(t, server.url)
	await tile(page, "broken").getByText("Failed: the stand-in was told to fail").waitFor()
	await page.getByLabel("Show", { exact: true }).selectOption("failed")
	await tile(page, "windmill").waitFor({ state: "detached" })
	await tile(page, "broken").waitFor()
	assert.equal(await page.locator(".tile").count(), 1)
	await page.getByLabel("Show", { exact: true }).selectOption("")
	await tile(page, "lighthouse").waitFor()
	await page.getByLabel("Search prompts").fill("WIND")
	await tile(page, "lighthouse").waitFor({ state: "detached" })
	await tile(page, "windmill").waitFor()
	assert.equal(await page.locator(".tile").count(), 1)
	await page.getByLabel("Search prompts").fill("nothing like it")
	await page.getByText("Nothing matches.").waitFor()
})

test("what failed says why, and is drawn again on a click", async t => {
	const server = await serve()
	await server.draw({ prompt: "broken fail", seed: 5 })
	const page = await open(t, server.url)
	await tile(page, "broken").locator(".open").click()
	await page.getByText("It failed: the stand-in was told to fail.").waitFor()
	await shot(page, "failed")
	await page.locator("#stage").getByRole("button", { name: "Draw it again" }).click()
	await until("it is tried again", async () => (await server.json("/predictions?status=failed")).results.length === 2)
	const { results } = await server.json("/predictions")
	assert.deepEqual(
		results.map(one => one.input.seed),
		[5, 5],
	)
})

test("settings, prompt or seed of a picture can be used again", async t => {
	const server = await serve()
	await server.draw({
		prompt: "a fjord",
		negative_prompt: "ships",
		width: 1024,
		seed: 77,
		blend: "smooth",
		guidance_scale: 9,
	})
	const page = await open(t, server.url)
	await page.getByLabel("Prompt", { exact: true }).fill("mine")
	await tile(page, "fjord").getByRole("button", { name: "Use the seed" }).click()
	assert.equal(await page.getByLabel("Seed", { exact: true }).inputValue(), "77")
	assert.equal(await page.getByLabel("Prompt", { exact: true }).inputValue(), "mine")
	await tile(page, "fjord").getByRole("button", { name: "Use the prompt" }).click()
	assert.equal(await page.getByLabel("Prompt", { exact: true }).inputValue(), "a fjord")
	assert.ok(await page.getByLabel("4:1").isChecked())
	await tile(page, "fjord").getByRole("button", { name: "Use all settings" }).click()
	assert.ok(await page.getByLabel("2:1").isChecked())
	const sent = page.waitForRequest(request => request.method() === "PUT")
	await page.keyboard.press("Control+Enter")
	assert.deepEqual((await sent).postDataJSON().input, {
		prompt: "a fjord",
		negative_prompt: "ships",
		width: 1024,
		guidance_scale: 9,
		seed: 77,
		blend: "smooth",
	})
})

test("a deletion can be undone for some seconds, and then happens", async t => {
	const server = await serve()
	await server.draw({ prompt: "keep me" })
	await server.draw({ prompt: "drop me" })
	const page = await open(t, server.url)
	await tile(page, "keep me").getByRole("button", { name: "Delete" }).click()
	await tile(page, "keep me").waitFor({ state: "detached" })
	await shot(page, "deleted")
	await page.getByRole("button", { name: "Undo" }).click()
	await tile(page, "keep me").waitFor()
	await tile(page, "drop me").getByRole("button", { name: "Delete" }).click()
	await page.locator(".toast").getByRole("button", { name: "Dismiss" }).click()
	await until("it is deleted", async () => (await server.json("/predictions")).results.length === 1)
	assert.equal((await server.json("/predictions")).results[0].input.prompt, "keep me")
	// Leaving the page is no undo.
	await tile(page, "keep me").getByRole("button", { name: "Delete" }).click()
	await page.goto("about:blank")
	await until("it is deleted, too", async () => (await server.json("/predictions")).results.length === 0)
})

test("arrow keys go through the history, and two pictures are compared with a slider", async t => {
	const server = await serve()
	for (const prompt of ["one", "two", "three"]) await server.draw({ prompt: `picture ${prompt}` })
	const page = await open(t, server.url)
	await tile(page, "three").locator(".open").focus()
	await page.keyboard.press("ArrowRight")
	await page.keyboard.press("Enter")
	await page.locator("#stage").getByText("picture two").waitFor()
	await page.evaluate(() => document.activeElement.blur())
	await page.keyboard.press("ArrowRight")
	await page.locator("#stage").getByText("picture one").waitFor()
	await tile(page, "three").getByRole("button", { name: "Compare" }).click()
	await page.getByText("Choose a second picture").waitFor()
	await tile(page, "one").getByRole("button", { name: "Compare" }).click()
	const slider = page.getByLabel("How much of the left picture is seen")
	await slider.waitFor()
	await slider.fill("25")
	assert.equal(await page.locator(".compare .over").evaluate(node => node.style.clipPath), "inset(0px 0px 0px 25%)")
	await page.getByText("Left: seed").waitFor()
	await shot(page, "compare")
	await page.keyboard.press("Escape")
	await slider.waitFor({ state: "detached" })
})

test("a prediction that was deleted elsewhere says so", async t => {
	const server = await serve()
	const made = await server.draw({ prompt: "soon gone" })
	await server.draw({ prompt: "still there" })
	const page = await open(t, server.url, { expected: /status of 404/ })
	await tile(page, "soon gone").locator("img").waitFor()
	await page.route(`**/predictions/${made.id}/output*`, async route => {
		await fetch(`${server.url}/predictions/${made.id}`, { method: "DELETE" })
		await route.continue()
	})
	await page.reload()
	await tile(page, "still there").locator("img").waitFor()
	// Its picture is fetched only now, and is gone by then.
	await tile(page, "soon gone").waitFor({ state: "detached" })
	const late = await open(t, `${server.url}/#${made.id}`, { expected: /status of 404/ })
	await late.getByText("The prediction of this address is not on the server.").waitFor()
})

test("the newest picture comes first, also when the page has been filtered", async t => {
	const server = await serve()
	const page = await open(t, server.url)
	await draw(page, "alpha")
	await tile(page, "alpha").locator("img").waitFor()
	await draw(page, "beta")
	await tile(page, "beta").locator("img").waitFor()
	assert.match(await page.locator(".tile").first().innerText(), /beta/)
})
