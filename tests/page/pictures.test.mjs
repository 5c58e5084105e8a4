// Pictures and texts as inputs: where they lie on the strip is shown, and can be changed.

import assert from "node:assert/strict"
import { test } from "node:test"
import { draw, open, serve, shot } from "./harness.mjs"

/** The inputs, for a server that lacks them. */
const INPUTS = {
	image: { type: "string", format: "uri", title: "Image", description: "Picture that becomes part of the panorama" },
	image_left: {
		type: "integer",
		title: "Image Left",
		description: "Column at which the picture begins",
		minimum: 0,
		maximum: 3071,
	},
	prompts: { type: "array", items: { type: "string" }, title: "Prompts", description: "Texts from left to right" },
}

/** A picture of 512 by 512 that was not made here. */
function foreign(page) {
	return page.evaluate(async () => {
		const canvas = document.createElement("canvas")
		canvas.width = canvas.height = 512
		const context = canvas.getContext("2d")
		context.fillStyle = "#c08040"
		context.fillRect(0, 0, 512, 512)
		const blob = await new Promise(done => canvas.toBlob(done, "image/png"))
		return [...new Uint8Array(await blob.arrayBuffer())]
	})
}

test("a picture that is dropped is placed on the strip, and dragged", async t => {
	const server = await serve()
	const page = await open(t, `${server.url}/docs`, { expected: /status of 400/ })
	await page.route("**/openapi.json", async route => {
		const answer = await route.fetch()
		const document = await answer.json()
		const { properties } = document.components.schemas.Input
		for (const [name, field] of Object.entries(INPUTS)) properties[name] ??= { ...field, "x-order": 90 }
		await route.fulfill({ response: answer, json: document })
	})
	// The stand-in worker draws without it; what is sent is what counts.
	await page.route("**/predictions/page_*", route =>
		route.request().method() === "PUT" ? route.fulfill({ status: 400, json: { detail: "enough" } }) : route.continue(),
	)
	await page.goto(server.url)
	await page.locator("html[data-ready]").waitFor({ state: "attached" })
	const bytes = await foreign(page)
	await page.evaluate(bytes => {
		const files = new DataTransfer()
		files.items.add(new File([new Uint8Array(bytes)], "mine.png", { type: "image/png" }))
		document.body.dispatchEvent(new DragEvent("drop", { dataTransfer: files, bubbles: true, cancelable: true }))
	}, bytes)
	await page.getByText("begins at column 768 of 2048").waitFor()
	await page.locator(".placed").scrollIntoViewIfNeeded()
	await page.locator(".placed").hover()
	const box = await page.locator(".placed").boundingBox()
	await page.mouse.move(box.x + 10, box.y + 5)
	await page.mouse.down()
	await page.mouse.move(box.x - 500, box.y + 5, { steps: 4 })
	await page.mouse.up()
	await page.getByText("begins at column 0 of 2048").waitFor()
	await page.getByRole("button", { name: "Move the picture right" }).click()
	await page.getByText("begins at column 8 of 2048").waitFor()
	await page.getByText("Words", { exact: true }).click()
	await page.getByLabel("Prompts", { exact: true }).fill("forest\n\n  sea ")
	await page.getByText("The texts lie from left to right.").waitFor()
	await shot(page, "placed")
	const sent = page.waitForRequest(request => request.method() === "PUT")
	await draw(page, "around my picture")
	const { input } = (await sent).postDataJSON()
	assert.match(input.image, /^data:image\/png;base64,/)
	assert.equal(input.image_left, 8)
	assert.deepEqual(input.prompts, ["forest", "sea"])
	await page.getByText("It was refused: enough.").waitFor()
	await page.getByRole("button", { name: "Into the middle" }).click()
	await page.getByText("begins at column 768 of 2048").waitFor()
	await page.getByRole("button", { name: "Remove" }).first().click()
	await page.locator(".placed").waitFor({ state: "hidden" })
})
