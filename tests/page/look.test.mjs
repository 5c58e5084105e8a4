// How the pages look and whom they serve: every width in both schemes, axe, sizes and speed.

import assert from "node:assert/strict"
import { readFileSync } from "node:fs"
import { createRequire } from "node:module"
import { test } from "node:test"
import { draw, gate, open, serve, shot, tile } from "./harness.mjs"

const AXE = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8")

/** The bytes of what a page loads, without pictures and answers. */
const MAX_BYTES = 150_000

/** Fails on what axe finds. The page forbids scripts from elsewhere, so it is added by the browser's protocol. */
async function accessible(page, what) {
	const session = await page.context().newCDPSession(page)
	await session.send("Runtime.evaluate", { expression: AXE })
	const options = {
		resultTypes: ["violations"],
		runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"],
	}
	const { violations } = await page.evaluate(async options => {
		// The button stays in sight over whatever is there, which can be scrolled to.
		const bar = document.querySelector(".draw")
		bar?.style.setProperty("position", "static")
		const found = await window.axe.run(document, options)
		bar?.style.removeProperty("position")
		return found
	}, options)
	const found = violations.map(
		({ id, help, nodes }) =>
			`${id}: ${help}: ${nodes.map(node => `${node.html.slice(0, 160)} ${node.any[0]?.message ?? ""}`).join(" | ")}`,
	)
	assert.deepEqual(found, [], what)
}

const sideways = page =>
	page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth)

for (const scheme of ["light", "dark"])
	for (const width of [360, 768, 1440])
		test(`all states at ${width} pixels in ${scheme}`, async t => {
			const server = await serve()
			const page = await open(t, server.url, { width, height: 900, scheme })
			const name = state => `${state}-${width}-${scheme}`
			await page.getByText("Describe a place, and get a panorama of it").waitFor()
			await shot(page, name("first"))
			await accessible(page, "the first visit")
			assert.equal(await sideways(page), 0)
			await server.draw({ prompt: "mountains and a lake in the morning", seed: 40 })
			await server.draw({ prompt: "broken fail", seed: 200 })
			await server.draw({ prompt: "a street all around", seed: 250, seamless: true, width: 3072 })
			await page.reload()
			await tile(page, "mountains").locator("img").waitFor()
			await tile(page, "a street").locator(".open").click()
			await page.locator("#viewer.filled").waitFor()
			const go = gate()
			await draw(page, `hills until=${go}`)
			await draw(page, `and a river until=${go}`)
			await page.locator(".job", { hasText: "hills" }).getByText("Step 1 of 50").waitFor()
			await tile(page, "a street").locator(".open").click()
			await page.locator("#viewer.filled").waitFor()
			await page.getByText("Synchronisation").click()
			await page.getByText("The same with code").click()
			await page.locator(".tile.drawn img").first().waitFor()
			await page.evaluate(() => window.scrollTo(0, 0))
			await shot(page, name("busy"))
			await accessible(page, "a page full of things")
			assert.equal(await sideways(page), 0)
			// The one that waits first: it would begin.
			for (const job of ["and a river", "hills"]) await page.locator(".job", { hasText: job }).locator(".tool").click()
		})

test("the reference of the API is readable, can be tried, and is for everybody", async t => {
	const server = await serve()
	for (const [width, scheme] of [
		[360, "dark"],
		[1440, "light"],
	]) {
		const page = await open(t, `${server.url}/docs`, { width, scheme, expected: /status of 404/ })
		const { paths } = await server.json("/openapi.json")
		for (const path of Object.keys(paths)) await page.locator(".operation h3", { hasText: path }).first().waitFor()
		const make = page.locator("#predict_predictions_post")
		await make.getByText("Try it").click()
		await shot(page, `docs-${width}-${scheme}`)
		await make.getByRole("button", { name: "Send" }).click()
		await make.locator(".result").getByText("200 OK").waitFor()
		await make.locator(".result").getByText('"succeeded"').waitFor()
		const get = page
			.locator("#get_predictions__prediction_id__get, .operation")
			.filter({ hasText: "GET /predictions/{prediction_id}" })
			.first()
		await get.getByText("Try it").click()
		await get.getByLabel("prediction_id").fill("none")
		await get.getByRole("button", { name: "Send" }).click()
		await get.locator(".result").getByText("404").waitFor()
		await accessible(page, "the reference")
		assert.equal(await sideways(page), 0)
	}
})

test("nothing comes from elsewhere, it is small, and it is there at once", async t => {
	const server = await serve()
	await server.draw({ prompt: "there already" })
	const page = await open(t, `${server.url}/docs`)
	for (const path of ["/playground", "/docs", "/view/x"]) {
		const loaded = new Map()
		const take = async answer => {
			const url = new URL(answer.url())
			assert.equal(url.origin, server.url, `${url} is elsewhere`)
			if (/\.(js|css|svg)$|^\/(playground|docs|view\/x)$/.test(url.pathname))
				loaded.set(url.pathname, (await answer.body()).length)
		}
		const fresh = await open(t, `${server.url}/live`, { ready: false, expected: /status of 404/ })
		fresh.on("response", take)
		await fresh.goto(server.url + path, { waitUntil: "networkidle" })
		const bytes = [...loaded.values()].reduce((sum, size) => sum + size, 0)
		const painted = await fresh.evaluate(
			() =>
				new Promise(done =>
					new PerformanceObserver(list => done(list.getEntries().at(-1).startTime)).observe({
						type: "largest-contentful-paint",
						buffered: true,
					}),
				),
		)
		console.log(
			`${path}: ${loaded.size} files, ${bytes} bytes, largest contentful paint after ${Math.round(painted)} ms`,
		)
		assert.ok(loaded.size > 3 && bytes < MAX_BYTES, `${path} loads ${bytes} bytes`)
	}
	await page.close()
})

test("everything can be reached and done by keys alone", async t => {
	const server = await serve()
	await server.draw({ prompt: "a picture to be opened" })
	const page = await open(t, server.url)
	await tile(page, "to be opened").locator("img").waitFor()
	const visited = new Set()
	await page.locator("#prompt").focus()
	for (let at = 0; at < 60; at += 1) {
		await page.keyboard.press("Tab")
		visited.add(
			await page.evaluate(() => {
				const node = document.activeElement
				const box = node.getBoundingClientRect()
				const on = document.elementFromPoint(box.x + box.width / 2, box.y + box.height / 2)
				const covered = box.width > 0 && on && !node.contains(on) && !on.contains(node) ? " (covered)" : ""
				return `${node.getAttribute("aria-label") ?? node.title ?? ""}${node.name ?? ""}${node.textContent.slice(0, 30)}${covered}`
			}),
		)
	}
	const all = [...visited].join("\n")
	for (const wanted of [
		"Draw",
		"Another seed",
		"Open: a picture to be opened",
		"Delete",
		"Search prompts",
		"The same with code",
	])
		assert.ok(all.includes(wanted), `${wanted} is not reached:\n${all}`)
	assert.ok(!all.includes("(covered)"), all)
})
