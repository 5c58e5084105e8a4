// The viewer, what can be saved and shared, and pictures that bring their settings back.

import assert from "node:assert/strict"
import { readFileSync, writeFileSync } from "node:fs"
import { createServer } from "node:http"
import { join } from "node:path"
import { test } from "node:test"
import { folder, holds, open, serve, shot, tile, until } from "./harness.mjs"

/** Opens a picture, and returns where it is drawn. */
async function opened(page, prompt) {
	await tile(page, prompt).locator(".open").click()
	await page.locator("#viewer.filled").waitFor()
	return () =>
		page.locator(".view-image").evaluate(({ style }) => ({
			at: style.backgroundPosition.split(" ").map(parseFloat),
			size: style.backgroundSize.split(" ").map(parseFloat),
		}))
}

test("a picture is zoomed, moved and shown whole, by buttons, keys and the pointer", async t => {
	const server = await serve()
	await server.draw({ prompt: "wide", width: 3072 })
	const page = await open(t, server.url, { reducedMotion: "reduce" })
	const where = await opened(page, "wide")
	const start = await where()
	await page.getByRole("button", { name: "Look left" }).click()
	assert.ok((await where()).at[0] > start.at[0], "looking left moves the picture right")
	await page.getByRole("button", { name: "Zoom in" }).click()
	const near = await where()
	assert.ok(near.size[0] > start.size[0] * 1.4)
	await page.locator(".view").focus()
	await page.keyboard.press("ArrowRight")
	assert.ok((await where()).at[0] < near.at[0])
	await page.keyboard.press("0")
	const view = await page.locator(".view").boundingBox()
	const whole = await where()
	assert.ok(whole.size[0] <= view.width + 1 && whole.size[1] <= view.height + 1, "all of it is seen")
	await page.keyboard.press("+")
	await page.keyboard.press("+")
	const before = await where()
	await page.mouse.move(view.x + 400, view.y + 100)
	await page.mouse.down()
	await page.mouse.move(view.x + 340, view.y + 100, { steps: 3 })
	await page.mouse.up()
	assert.ok(Math.abs((await where()).at[0] - before.at[0] + 60) < 2, "the picture follows the pointer")
	await page.getByRole("button", { name: "Full screen" }).click()
	await holds(page, () => document.fullscreenElement?.id === "viewer")
	await page.evaluate(() => document.exitFullscreen())
	await holds(page, () => !document.fullscreenElement)
})

test("a loop turns for ever, and is seen from inside", async t => {
	const server = await serve()
	await server.draw({ prompt: "a ring", width: 1024, seamless: true })
	const page = await open(t, server.url, { reducedMotion: "reduce" })
	const where = await opened(page, "a ring")
	assert.equal(await page.locator(".view-image").evaluate(node => getComputedStyle(node).backgroundRepeat), "repeat-x")
	for (let at = 0; at < 30; at += 1) await page.getByRole("button", { name: "Look right" }).click()
	const { at, size } = await where()
	assert.ok(Math.abs(at[0]) <= size[0], "it goes round, and never ends")
	await page.getByRole("button", { name: "All around" }).click()
	const canvas = page.locator("canvas.round[data-drawn]")
	await canvas.waitFor()
	const turn = Number(await canvas.getAttribute("data-turn"))
	await page.getByRole("button", { name: "Look right" }).click()
	assert.ok(Number(await canvas.getAttribute("data-turn")) > turn)
	// The stand-in draws red from left to right, so the middle of the picture has some, and the start has none.
	const seen = await canvas.screenshot()
	assert.ok(seen.length > 2000)
	await shot(page, "round")
	await page.getByRole("button", { name: "All around" }).click()
	await canvas.waitFor({ state: "detached" })
})

test("a picture is saved in three formats, and copied", async t => {
	const server = await serve()
	await server.draw({ prompt: "To be saved!", width: 512, seed: 3 })
	const page = await open(t, server.url)
	await opened(page, "To be saved")
	const starts = { PNG: [0x89, 0x50], JPEG: [0xff, 0xd8], WebP: [0x52, 0x49] }
	for (const [name, start] of Object.entries(starts)) {
		await page.locator("#stage-tools summary", { hasText: "Save" }).click()
		const download = page.waitForEvent("download")
		await page.locator(".menu-list").getByRole("button", { name }).click()
		const file = await download
		assert.match(file.suggestedFilename(), /^to-be-saved-3\.(png|jpg|webp)$/)
		assert.deepEqual([...readFileSync(await file.path()).subarray(0, 2)], start, name)
	}
	await page.getByRole("button", { name: "Copy the picture" }).click()
	await page.getByText("The picture is in the clipboard.").waitFor()
	const kinds = await page.evaluate(async () => (await navigator.clipboard.read()).flatMap(item => item.types))
	assert.deepEqual(kinds, ["image/png"])
})

test("a link shows one picture to others, also inside their pages", async t => {
	const server = await serve(["--api-token", "secret"])
	const made = await fetch(`${server.url}/predictions`, {
		method: "POST",
		headers: { authorization: "Bearer secret", "content-type": "application/json" },
		body: JSON.stringify({ input: { prompt: "shared with all", width: 1024, seamless: true } }),
	})
	assert.equal(made.status, 200)
	const page = await open(t, server.url, { expected: /status of 401/ })
	await page.locator("#token").fill("secret")
	await page.keyboard.press("Enter")
	await opened(page, "shared with all")
	await page.getByRole("button", { name: "Copy a link" }).click()
	await page.getByText("A link to this picture is in the clipboard.").waitFor()
	const link = await page.evaluate(() => navigator.clipboard.readText())
	const alone = await open(t, link)
	await alone.locator("#viewer.filled").waitFor()
	assert.equal(await alone.title(), "shared with all")
	await alone.getByRole("button", { name: "All around" }).click()
	await alone.locator("canvas.round[data-drawn]").waitFor()
	await shot(alone, "view")
	const host = createServer((_, answer) =>
		answer
			.setHeader("content-type", "text/html")
			.end(
				`<title>a blog</title><link rel="icon" href="data:,"><iframe src="${link}" width="600" height="300"></iframe>`,
			),
	)
	await new Promise(done => host.listen(0, "127.0.0.1", done))
	t.after(() => host.close())
	const blog = await open(t, `http://localhost:${host.address().port}/`, { ready: false })
	await blog.frameLocator("iframe").locator("#viewer.filled").waitFor()
	const wrong = await open(t, link.replace(/key=.*/, "key=x"), { ready: false, expected: /status of 404/ })
	await wrong.getByText("There is no such picture").waitFor()
})

test("a picture that was made here brings its settings back, however it comes", async t => {
	const server = await serve()
	const input = {
		prompt: 'a fjord in Øst, 霧 & "fog"',
		negative_prompt: "boats",
		width: 1024,
		seed: 9007199254740993n,
		blend: "smooth",
		sync_threshold: 7,
	}
	const body = JSON.stringify({ input }, (_, value) => (typeof value === "bigint" ? `BIG${value}` : value)).replace(
		/"BIG(\d+)"/,
		"$1",
	)
	const made = await (
		await fetch(`${server.url}/predictions`, { method: "POST", headers: { "content-type": "application/json" }, body })
	).json()
	const png = Buffer.from(made.output.split(",")[1], "base64")
	const file = join(folder, "made.png")
	writeFileSync(file, png)
	const page = await open(t, server.url)
	const check = async () => {
		await page.getByText("This picture was made here: its settings are in the form.").waitFor()
		const sent = page.waitForRequest(request => request.method() === "PUT")
		await page.keyboard.press("Control+Enter")
		const text = (await sent).postData()
		assert.match(text, /"seed":9007199254740993\b/)
		const { input: again } = JSON.parse(text)
		assert.deepEqual({ ...again, seed: 0 }, { ...input, seed: 0 })
		await until("it is drawn", async () => (await page.locator(".job").count()) === 0)
	}
	await page.locator("#file").setInputFiles(file)
	await check()
	await page.reload()
	await page.locator("html[data-ready]").waitFor({ state: "attached" })
	await page.getByLabel("Prompt", { exact: true }).fill("something else")
	await page.evaluate(
		async bytes => {
			const files = new DataTransfer()
			files.items.add(new File([new Uint8Array(bytes)], "made.png", { type: "image/png" }))
			document.body.dispatchEvent(new DragEvent("drop", { dataTransfer: files, bubbles: true, cancelable: true }))
		},
		[...png],
	)
	await check()
	writeFileSync(file, "no picture at all")
	await page.locator("#file").setInputFiles(file)
	await page.locator(".toast.bad, .toast", { hasText: "picture" }).last().waitFor()
})

test("the code is always what the form says, and it works", async t => {
	const server = await serve()
	const page = await open(t, server.url)
	await page.getByText("The same with code").click()
	await page.getByLabel("Prompt", { exact: true }).fill('it\'s "quoted"')
	await page.getByLabel("2:1").check()
	const code = page.locator("#code-text")
	await code.getByText("1024").waitFor()
	const { execFileSync } = await import("node:child_process")
	const answer = JSON.parse(
		execFileSync("bash", ["-c", await code.innerText()], { encoding: "utf8", maxBuffer: 1 << 28 }),
	)
	assert.equal(answer.status, "succeeded")
	assert.equal(answer.input.prompt, 'it\'s "quoted"')
	assert.equal(answer.input.width, 1024)
	await page.getByRole("tab", { name: "curl" }).focus()
	await page.keyboard.press("ArrowRight")
	assert.match(await code.innerText(), /^import requests/)
	assert.equal(await page.getByRole("tab", { name: "Python" }).getAttribute("aria-selected"), "true")
	await page.getByRole("tab", { name: "JavaScript" }).click()
	const script = join(folder, "example.mjs")
	writeFileSync(script, await code.innerText())
	execFileSync(process.execPath, [script], { cwd: folder })
	assert.deepEqual([...readFileSync(join(folder, "panorama.png")).subarray(1, 4)], [...Buffer.from("PNG")])
	await page.getByRole("tab", { name: "Command line" }).click()
	assert.match(await code.innerText(), /--prompt 'it'\\''s "quoted"' \\\n {2}--width 1024/)
	await shot(page, "code")
})
