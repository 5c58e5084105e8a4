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

/** Drops a picture of a size that was not made here. */
function dropForeign(page, width, height) {
	return page.evaluate(
		async ([width, height]) => {
			const canvas = document.createElement("canvas")
			canvas.width = width
			canvas.height = height
			const context = canvas.getContext("2d")
			context.fillStyle = "#c08040"
			context.fillRect(0, 0, width, height)
			const blob = await new Promise(done => canvas.toBlob(done, "image/png"))
			const files = new DataTransfer()
			files.items.add(new File([blob], "mine.png", { type: "image/png" }))
			document.body.dispatchEvent(new DragEvent("drop", { dataTransfer: files, bubbles: true, cancelable: true }))
		},
		[width, height],
	)
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
	await dropForeign(page, 512, 512)
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

test("a picture lies where the server draws it, at the height of the panorama", async t => {
	const server = await serve()
	const page = await open(t, server.url, { expected: /status of 422/ })
	const placed = page.locator(".placed")
	const width = async () => {
		const [picture, canvas] = [await placed.boundingBox(), await page.locator(".strip-canvas").boundingBox()]
		return (2048 * picture.width) / canvas.width
	}
	/** Draws what the form says, and returns what was sent and whether it was taken. */
	const ask = async prompt => {
		const answered = page.waitForResponse(response => response.request().method() === "PUT")
		await draw(page, prompt)
		const response = await answered
		return [response.status() < 300, response.request().postDataJSON().input]
	}
	// 3:2 and 4:3, smaller and larger than the panorama: of 768 and 683 columns, the latter without the last three.
	for (const [size, says, middle, last, columns] of [
		[[300, 200], "768 × 512", 640, 1280, 768],
		[[4000, 3000], "683 × 512", 684 - 4, 1368, 680],
	]) {
		await dropForeign(page, ...size)
		await page.getByText(`Your picture is ${says} in the panorama, and begins at column ${middle} of 2048.`).waitFor()
		assert.ok(Math.abs((await width()) - columns) < 8, `${await width()} columns`)
		await placed.scrollIntoViewIfNeeded()
		await placed.hover()
		const [box, strip] = [await placed.boundingBox(), await page.locator(".strip-canvas").boundingBox()]
		await page.mouse.move(box.x + 10, box.y + 5)
		await page.mouse.down()
		await page.mouse.move(box.x + 10 + strip.width, box.y + 5, { steps: 4 })
		await page.mouse.up()
		await page.getByText(`begins at column ${last} of 2048.`).waitFor()
		const [taken, input] = await ask(`at the right end ${last}`)
		assert.deepEqual([taken, input.image_left], [true, last])
		await page.getByLabel("Image Left", { exact: true }).fill(String(last + 4))
		await page.getByText(`would go past the right end; ${last} is the last column for it.`).waitFor()
		assert.equal((await ask("past it"))[0], false)
		await page.getByRole("button", { name: "Into the middle" }).click()
	}
	await dropForeign(page, 820, 100)
	await page
		.getByText("4198 × 512 in the panorama, which is only 2048 wide; choose a width of at least 4198.")
		.waitFor()
	await dropForeign(page, 1, 600)
	await page.getByText("too narrow to be seen at this height").waitFor()
})

test("what a picture was made of is asked for again", async t => {
	const server = await serve()
	const page = await open(t, server.url)
	const picture = await page.evaluate(() => {
		const canvas = document.createElement("canvas")
		canvas.width = canvas.height = 64
		return canvas.toDataURL("image/png")
	})
	const input = {
		prompt: "around it",
		image: picture,
		image_left: 64,
		strength: 0.5,
		anchor_image: picture,
		stride: 32,
	}
	const { output, status } = await server.draw(input, "made")
	assert.equal(status, "succeeded")
	const png = Buffer.from(output.split(",")[1], "base64")
	await page.locator("#file").setInputFiles({ name: "made.png", mimeType: "image/png", buffer: png })
	await page.getByText("its settings are in the form. Pictures that it was made from are not in it").waitFor()
	const toast = await page.locator(".toast", { hasText: "give them again" }).innerText()
	assert.ok(/: Image|, Image/.test(toast) && toast.includes("Anchor Image"), toast)
	const sent = page.waitForResponse(response => response.request().method() === "PUT")
	await page.keyboard.press("Control+Enter")
	const answer = await sent
	assert.ok(answer.status() < 300, String(answer.status()))
	const { input: again } = answer.request().postDataJSON()
	assert.deepEqual([again.prompt, again.stride], ["around it", 32])
	for (const name of ["image", "image_left", "strength", "anchor_image"]) assert.ok(!(name in again), name)
})
