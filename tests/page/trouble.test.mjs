// When something goes wrong the page says what, and nothing that was typed or sent is lost.

import assert from "node:assert/strict"
import { writeFileSync } from "node:fs"
import { request as ask, createServer } from "node:http"
import { test } from "node:test"
import { draw, gate, holds, open, serve, shot, tile, until } from "./harness.mjs"

/** What a browser reports of a server that is away. */
const AWAY = /ERR_CONNECTION_REFUSED|ERR_INCOMPLETE_CHUNKED_ENCODING|ERR_EMPTY_RESPONSE|ERR_CONNECTION_RESET/

test("a server that goes away and comes back loses nothing", async t => {
	const server = await serve()
	const page = await open(t, server.url, { expected: AWAY })
	const go = gate()
	await draw(page, `survives until=${go}`)
	await page.locator(".job").getByText("Step 1 of 50").waitFor()
	await server.stop()
	await page.locator("#status-word", { hasText: "The server cannot be reached" }).waitFor()
	await draw(page, "sent while it was away")
	const waits = page.locator(".job", { hasText: "sent while" })
	await waits.getByText("It is sent as soon as the server is back").waitFor()
	await shot(page, "away")
	await server.start()
	await page.getByText("The server is back.").waitFor()
	writeFileSync(go, "")
	await tile(page, "survives").locator("img").waitFor()
	await tile(page, "sent while").locator("img").waitFor()
	const { results } = await server.json("/predictions")
	assert.deepEqual(
		results.map(one => one.status),
		["succeeded", "succeeded"],
		"each was drawn once",
	)
})

test("a token is asked for once, and one that expires does not lose what was sent", async t => {
	const server = await serve(["--api-token", "old"])
	const page = await open(t, server.url, { expected: /status of 401/ })
	await page.getByText("This server needs a token.").waitFor()
	await shot(page, "token")
	await draw(page, "typed before the token")
	await page.locator("#token").fill("wrong")
	await page.keyboard.press("Enter")
	await page.getByText("no longer valid").waitFor()
	await page.locator("#token").fill("old")
	await page.keyboard.press("Enter")
	await tile(page, "typed before").locator("img").waitFor()
	await page.locator("#access").waitFor({ state: "hidden" })
	assert.equal(await page.evaluate(() => sessionStorage.getItem("token")), "old")
	await page.route("**/predictions/page_*", route =>
		route.fulfill({ status: 401, json: { detail: "the token is not valid for this server" } }),
	)
	await draw(page, "after it expired")
	await page.getByText("no longer valid").waitFor()
	assert.equal(await page.getByLabel("Prompt", { exact: true }).inputValue(), "after it expired")
	await page.unroute("**/predictions/page_*")
	await page.locator("#token").fill("old ")
	await page.getByRole("button", { name: "Use it" }).click()
	await page.reload()
	await tile(page, "typed before").locator("img").waitFor()
})

test("a full queue says so, and what was sent goes in when there is room", async t => {
	const server = await serve(["--queue-size", "1"])
	const page = await open(t, server.url, { expected: /status of 429/ })
	const go = gate()
	await draw(page, `runs until=${go}`)
	await page.locator(".job").getByText("Step 1 of 50").waitFor()
	await draw(page, "waits")
	await page.locator(".job", { hasText: "waits" }).getByText("Next in the queue").waitFor()
	await draw(page, "has no room")
	const card = page.locator(".job", { hasText: "has no room" })
	await card.getByText("The queue is full").waitFor()
	await shot(page, "full")
	await draw(page, "taken back")
	await page.locator(".job", { hasText: "taken back" }).getByRole("button", { name: /^Stop/ }).click()
	writeFileSync(go, "")
	await tile(page, "has no room").locator("img").waitFor()
	assert.equal((await server.json("/predictions")).results.length, 3)
})

test("a model that cannot be loaded is explained", async t => {
	const server = await serve([], { STAND_IN_LOAD_ERROR: "no CUDA device was found; choose `--device cpu`" })
	const page = await open(t, server.url, { expected: /status of 503/ })
	await page.locator("#status-word", { hasText: "The model cannot be loaded" }).waitFor()
	await page.locator("#status-word").click()
	await page.getByText("syncdiffusion doctor").waitFor()
	await page.locator("#status-more").getByText("no CUDA device was found").first().waitFor()
	await draw(page, "cannot be drawn")
	await page.locator(".job").getByText("It is sent again by itself").waitFor()
	await shot(page, "unloaded")
	await page.locator(".job").getByRole("button", { name: /^Stop/ }).click()
	await page.locator(".job").waitFor({ state: "detached" })
	assert.equal(await page.getByLabel("Prompt", { exact: true }).inputValue(), "cannot be drawn")
})

test("a disk that is full is named", async t => {
	const server = await serve()
	const page = await open(t, server.url, { expected: /status of 503/ })
	const error = "the disk cannot be written: no space left on device"
	await page.route("**/health-check", async route => {
		const answer = await route.fetch()
		await route.fulfill({
			response: answer,
			json: { ...(await answer.json()), status: "UNHEALTHY", user_healthcheck_error: error },
		})
	})
	let full = true
	await page.route("**/predictions/page_*", route =>
		full && route.request().method() === "PUT"
			? route.fulfill({ status: 503, json: { error, status: "failed" } })
			: route.continue(),
	)
	await draw(page, "needs room")
	await page.locator("#status-word", { hasText: "The disk cannot be written" }).waitFor()
	await page.locator(".job").getByText("no space left on device").waitFor()
	await shot(page, "disk")
	full = false
	await tile(page, "needs room").locator("img").waitFor()
})

test("it works behind a proxy with a prefix", async t => {
	const server = await serve()
	const port = new URL(server.url).port
	const proxy = createServer((incoming, answer) => {
		if (!incoming.url.startsWith("/some/where/")) {
			answer.writeHead(404).end()
			return
		}
		const to = ask(
			{
				port,
				host: "127.0.0.1",
				path: incoming.url.slice("/some/where".length),
				method: incoming.method,
				headers: incoming.headers,
			},
			from => {
				answer.writeHead(from.statusCode, from.headers)
				from.pipe(answer)
			},
		)
		to.on("error", () => answer.destroy())
		answer.on("close", () => to.destroy())
		incoming.pipe(to)
	})
	await new Promise(done => proxy.listen(0, "127.0.0.1", done))
	t.after(() => proxy.close())
	const base = `http://127.0.0.1:${proxy.address().port}/some/where`
	const page = await open(t, `${base}/playground`)
	await draw(page, "below a prefix")
	await tile(page, "below").locator("img").waitFor()
	await page.locator("#viewer.filled").waitFor()
	await page.getByRole("button", { name: "Copy a link" }).click()
	await page.getByText("A link to this picture is in the clipboard.").waitFor()
	const link = await page.evaluate(() => navigator.clipboard.readText())
	assert.ok(link.startsWith(`${base}/view/`), link)
	const alone = await open(t, link)
	await alone.locator("#viewer.filled").waitFor()
	const docs = await open(t, `${base}/docs`)
	await docs.getByText("/predictions/{prediction_id}/cancel").first().waitFor()
})

test("two tabs with many pictures do not starve each other", async t => {
	const server = await serve()
	const go = gate()
	const context = await open(t, server.url)
	await context.getByLabel("4", { exact: true }).check()
	for (let at = 0; at < 3; at += 1) await draw(context, `many until=${go}`)
	await until(
		"all are accepted",
		async () =>
			(await context.locator(".job").count()) === 12 &&
			(await server.json("/predictions?limit=50")).results.length === 12,
	)
	const other = await context.context().newPage()
	await other.goto(server.url)
	await other.locator(".job").nth(11).waitFor()
	writeFileSync(go, "")
	await until(
		"all are drawn",
		async () =>
			(await other.locator(".tile img").count()) === 12 && (await context.locator(".tile img").count()) === 12,
	)
})

test("the title says how far it is, and a notification comes to who asked for it", async t => {
	const server = await serve()
	const page = await open(t, server.url, { permissions: ["notifications"] })
	await page.getByRole("button", { name: "Notify me" }).click()
	await page.getByText("You get a notification when a picture is done").waitFor()
	await page.evaluate(() => {
		window.told = []
		window.Notification = class {
			static permission = "granted"
			constructor(title, { body }) {
				window.told.push([title, body])
			}
		}
		Object.defineProperty(document, "hidden", { get: () => true })
	})
	const go = gate()
	await draw(page, `far away until=${go}`)
	await holds(page, () => document.title.startsWith("2 % · "))
	writeFileSync(go, "")
	await holds(page, () => window.told.length === 1)
	assert.deepEqual(await page.evaluate(() => window.told), [["Your panorama is done", `far away until=${go}`]])
	assert.match(await page.title(), /^✓ · /)
})
