// Drawing: typing goes on, several wait, each with its own stop; the form is the schema.

import assert from "node:assert/strict"
import { writeFileSync } from "node:fs"
import { test } from "node:test"
import { draw, gate, holds, open, serve, shot, tile, until } from "./harness.mjs"

test("several pictures wait while somebody types, each with its own stop", async t => {
	const server = await serve()
	const page = await open(t, server.url)
	const go = gate()
	await draw(page, `first until=${go}`)
	const card = text => page.locator(".job", { hasText: text })
	await card("first").getByText("Step 1 of 50").waitFor()
	await draw(page, "second")
	await draw(page, "third")
	await card("second").getByText("Next in the queue").waitFor()
	await card("third").getByText("1 picture before it").waitFor()
	await page.getByText("1 picture being drawn, 2 waiting").waitFor()
	assert.match(await page.title(), /^2 % · /)
	assert.equal(await page.getByLabel("Prompt", { exact: true }).inputValue(), "third", "typing goes on")
	await page.getByLabel("Prompt", { exact: true }).fill("a fourth, not sent yet")
	await shot(page, "queue")
	await card("second").getByRole("button", { name: /^Stop/ }).click()
	await tile(page, "second").getByText("stopped").waitFor()
	writeFileSync(go, "")
	await tile(page, "first").locator("img").waitFor()
	await tile(page, "third").locator("img").waitFor()
	await page.locator("#queue").waitFor({ state: "hidden" })
	assert.equal(await page.getByLabel("Prompt", { exact: true }).inputValue(), "a fourth, not sent yet")
	const { results } = await server.json("/predictions")
	assert.deepEqual(results.map(one => one.status).sort(), ["canceled", "succeeded", "succeeded"])
})

test("a count draws pictures that differ in their seeds, and a locked seed counts up", async t => {
	const server = await serve()
	const page = await open(t, server.url)
	await page.getByLabel("4", { exact: true }).check()
	await draw(page, "four of them")
	await until("four are drawn", async () => (await server.json("/predictions?status=succeeded")).results.length === 4)
	const seeds = new Set((await server.json("/predictions")).results.map(one => one.input.seed))
	assert.equal(seeds.size, 4)
	await page.getByLabel("2", { exact: true }).check()
	await page.getByLabel("Seed", { exact: true }).fill("18446744073709551614")
	await draw(page, "locked")
	await until("six are drawn", async () => (await server.json("/predictions?status=succeeded")).results.length === 6)
	const text = await (await fetch(`${server.url}/predictions?limit=2`)).text()
	assert.match(text, /"seed":18446744073709551614\b/, "no digit is lost")
	assert.match(text, /"seed":18446744073709551615\b/)
	await tile(page, "locked").first().getByRole("button", { name: "Use the seed" }).click()
	assert.match(await page.getByLabel("Seed", { exact: true }).inputValue(), /^1844674407370955161[45]$/)
	assert.equal(await page.getByRole("button", { name: "Keep this seed" }).getAttribute("aria-pressed"), "true")
	await page.getByRole("button", { name: "Another seed" }).click()
	assert.match(await page.getByLabel("Seed", { exact: true }).inputValue(), /^\d{1,6}$/)
})

test("shapes, speed and folded settings are sent, and what is left alone is not", async t => {
	const server = await serve()
	const page = await open(t, server.url)
	const sent = page.waitForRequest(request => request.method() === "PUT")
	await page.getByLabel("2:1", { exact: true }).check()
	await page.getByLabel("Loop", { exact: true }).check()
	await page.getByLabel("Quick look").check()
	await page.getByText("Sampling").click()
	await page.getByLabel("Scheduler").selectOption("dpmpp_2m")
	await draw(page, "a ring")
	const { input } = (await sent).postDataJSON()
	delete input.seed
	assert.deepEqual(input, { prompt: "a ring", width: 1024, preset: "fast", seamless: true, scheduler: "dpmpp_2m" })
	await tile(page, "a ring").locator("img").waitFor()
	await page.getByText("Exact size").click()
	await page.getByLabel("Width").fill("2560")
	assert.equal(await page.locator("#form-shapes input[type=radio]:checked").count(), 0, "no chip is that size")
	await page.getByLabel("6:1", { exact: true }).check()
	assert.equal(await page.getByLabel("Width").inputValue(), "3072")
})

test("every input of the schema is on the page, and the pictures of the synchronisation follow it", async t => {
	const server = await serve()
	const page = await open(t, server.url)
	const { components } = await server.json("/openapi.json")
	for (const [name, { title }] of Object.entries(components.schemas.Input.properties)) {
		if (["preset", "num_outputs"].includes(name)) continue
		assert.ok((await page.locator(`[name="${name}"]`).count()) > 0, `${title} is on the page`)
	}
	await page.getByText("Synchronisation").click()
	await page.getByText("5 of 50 steps are synchronised").waitFor()
	await page.getByText("Sync Threshold").fill("12")
	await page.getByText("12 of 50 steps are synchronised").waitFor()
	await page.getByLabel("Sync Freq").fill("4")
	await page.getByText("3 of 50 steps are synchronised").waitFor()
	await shot(page, "settings")
})

test("an input that the page has never heard of appears by itself", async t => {
	const server = await serve()
	const page = await open(t, `${server.url}/docs`)
	await page.route("**/openapi.json", async route => {
		const answer = await route.fetch()
		const document = await answer.json()
		const { properties } = document.components.schemas.Input
		properties.haze = {
			type: "number",
			title: "Haze",
			description: "How thick the air is",
			minimum: 0,
			maximum: 1,
			default: 0.2,
			"x-order": 90,
		}
		delete properties.preset
		delete properties.seamless
		await route.fulfill({ response: answer, json: document })
	})
	await page.goto(server.url)
	await page.locator("html[data-ready]").waitFor({ state: "attached" })
	await page.getByText("More", { exact: true }).click()
	await page.getByLabel("Haze").fill("0.7")
	await page.getByText("How thick the air is. 0 to 1.").waitFor()
	assert.equal(await page.getByLabel("Quick look").count(), 0, "what a server lacks is not shown")
	assert.equal(await page.getByLabel("Loop", { exact: true }).count(), 0)
	const sent = page.waitForRequest(request => request.method() === "PUT")
	await draw(page, "hazy")
	assert.equal((await sent).postDataJSON().input.haze, 0.7)
})

test("wrong values are marked where they are, with what is right", async t => {
	const server = await serve()
	const page = await open(t, server.url, { expected: /status of 422/ })
	await page.getByText("Exact size").click()
	await page.getByLabel("Width").fill("1000")
	await page.getByText("Exact size").click()
	await page.getByText("Synchronisation").click()
	await page.getByLabel("Sync Weight").fill("31")
	await draw(page, "wrong")
	const wrong = page.locator("#wrong-width")
	await wrong.waitFor()
	assert.match(await wrong.innerText(), /multiple/)
	assert.equal(await page.getByLabel("Width").getAttribute("aria-invalid"), "true")
	assert.match(await page.locator("#wrong-sync_weight").innerText(), /30/)
	await page.getByText("Some values do not work").waitFor()
	await shot(page, "refused")
	await page.getByLabel("Width").fill("1024")
	await page.getByLabel("Sync Weight").fill("")
	await draw(page, "right")
	await tile(page, "right").locator("img").waitFor()
	assert.equal(await wrong.isVisible(), false)
})

test("an empty prompt asks for one", async t => {
	const server = await serve()
	const page = await open(t, server.url)
	await page.getByRole("button", { name: "Draw", exact: false }).first().click()
	await page.getByText("Describe what you want to see first.").waitFor()
	assert.equal((await server.json("/predictions")).results.length, 0)
})

test("the first visit offers an example, which explains itself while it is drawn", async t => {
	const server = await serve()
	const page = await open(t, server.url)
	await page.getByText("Describe a place, and get a panorama of it").waitFor()
	await shot(page, "welcome")
	// Held open, so that the explanation can be read.
	const go = gate()
	await page.route("**/predictions/page_*", async route => {
		const body = route.request().postDataJSON()
		if (!body) return route.continue()
		body.input.prompt += ` until=${go}`
		await route.continue({ postData: JSON.stringify(body) })
	})
	await page.getByRole("button", { name: "Draw an example" }).click()
	await page.getByText("What is happening?").waitFor()
	await page.locator(".steps [aria-current=step]", { hasText: "Synchronisation" }).waitFor()
	await shot(page, "example")
	writeFileSync(go, "")
	await page.locator("#viewer.filled").waitFor()
	await tile(page, "mountain range").locator("img").waitFor()
	const { results } = await server.json("/predictions")
	assert.equal(results[0].input.scheduler, "unipc", "the preset is the fast one")
	await page.reload()
	await tile(page, "mountain range").locator("img").waitFor()
	assert.equal(await page.locator("#welcome").isVisible(), false)
})

test("Esc stops what is drawn, and one click draws it again", async t => {
	const server = await serve()
	const page = await open(t, server.url)
	const go = gate()
	await draw(page, `long until=${go}`)
	await page.locator(".job").getByText("Step 1 of 50").waitFor()
	await page.keyboard.press("Escape")
	await page.getByText("Stopped.", { exact: true }).waitFor()
	await tile(page, "long").getByText("stopped").waitFor()
	await page.getByText("It was stopped before it was done.").waitFor()
	await shot(page, "stopped")
	writeFileSync(go, "")
	await page.locator(".toast").getByRole("button", { name: "Draw it again" }).click()
	await tile(page, "long").locator("img").waitFor()
})

test("a reload finds what is drawn, and what was typed", async t => {
	const server = await serve()
	const page = await open(t, server.url)
	const go = gate()
	await draw(page, `kept until=${go}`)
	await page.locator(".job").getByText("Step 1 of 50").waitFor()
	await page.getByLabel("Prompt", { exact: true }).fill("typed and not sent")
	await page.getByText("Words", { exact: true }).click()
	await page.getByLabel("Negative Prompt").fill("people")
	await page.reload()
	await page.locator(".job", { hasText: "kept" }).getByText("Step 1 of 50").waitFor()
	await page.locator("#stage").getByText("Step 1 of 50").waitFor()
	assert.equal(await page.getByLabel("Prompt", { exact: true }).inputValue(), "typed and not sent")
	assert.equal(await page.locator("#in-negative_prompt").inputValue(), "people")
	writeFileSync(go, "")
	await page.locator("#viewer.filled").waitFor()
	await tile(page, "kept").locator("img").waitFor()
})

test("previews are shown while a picture is drawn", async t => {
	const server = await serve()
	const page = await open(t, server.url)
	await draw(page, "teaches the worker how previews look")
	await tile(page, "teaches").locator("img").waitFor()
	await draw(page, "watched step=60")
	await holds(page, () =>
		document.querySelector(".job .preview")?.style.backgroundImage.startsWith('url("data:image/png'),
	)
	await page.locator("#viewer .view-image.soft").waitFor()
	await page.locator(".job .tool").click()
})
