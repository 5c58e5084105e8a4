// What the tests share: a server with the stand-in worker, Chromium, and pages that fail their test if anything is
// written to the console.

import assert from "node:assert/strict"
import { spawn } from "node:child_process"
import { existsSync, mkdirSync, mkdtempSync, rmSync } from "node:fs"
import { createServer } from "node:net"
import { tmpdir } from "node:os"
import { join, resolve } from "node:path"
import { after } from "node:test"
import { chromium } from "playwright-core"

const ROOT = resolve(import.meta.dirname, "../..")
const SERVER = process.env.SERVER ?? join(ROOT, "target/release/syncdiffusion")
const WORKER = process.env.WORKER ?? join(ROOT, "target/release/stand-in-worker")
const SHOTS = process.env.SHOTS ?? join(ROOT, "target/page")

/** Ends a test that hangs. */
export const LIMIT = 120_000

export const folder = mkdtempSync(join(tmpdir(), "page-"))
const servers = new Set()
let browser

after(async () => {
	await browser?.close()
	for (const server of servers) await server.stop()
	rmSync(folder, { recursive: true, force: true })
})

async function freePort() {
	const probe = createServer()
	await new Promise(done => probe.listen(0, "127.0.0.1", done))
	const { port } = probe.address()
	await new Promise(done => probe.close(done))
	return port
}

/** Waits until a condition holds. */
export async function until(what, condition) {
	const end = Date.now() + LIMIT
	for (;;) {
		const found = await condition()
		if (found) return found
		assert.ok(Date.now() < end, `waited in vain: ${what}`)
		await new Promise(done => setTimeout(done, 30))
	}
}

/** Waits until something holds in a page. Its policy forbids what Playwright's own waiting does. */
export const holds = (page, condition) => until(String(condition), () => page.evaluate(condition))

/** A server with the stand-in worker, that can end and come back at the same address. */
export async function serve(flags = [], environment = {}) {
	const data = mkdtempSync(join(folder, "data-"))
	const port = await freePort()
	const server = {
		data,
		url: `http://127.0.0.1:${port}`,
		async start() {
			const command = ["serve", "--host", "127.0.0.1", "--port", String(port), "--worker", WORKER, "--data-dir", data]
			server.process = spawn(SERVER, [...command, ...flags], {
				stdio: "ignore",
				env: { ...process.env, ...environment },
			})
			await until("the server is ready, or will not be", () =>
				fetch(`${server.url}/health-check`).then(
					async answer => (await answer.json()).status !== "STARTING",
					() => false,
				),
			)
			return server
		},
		async stop() {
			const { process } = server
			if (process.exitCode !== null || process.signalCode !== null) return
			const ended = new Promise(done => process.once("exit", done))
			process.kill("SIGKILL")
			await ended
		},
		/** Asks without a browser. */
		async json(path, options) {
			return (await fetch(server.url + path, options)).json()
		},
		/** Draws a picture without the page, and waits for it. */
		draw(input, id) {
			const body = JSON.stringify({ id, input })
			return server.json("/predictions", { method: "POST", headers: { "content-type": "application/json" }, body })
		},
	}
	servers.add(server)
	return server.start()
}

/** What Chromium says of its own drawing by software, not of the page. */
const OF_THE_BROWSER = /GL Driver Message|GroupMarkerNotSet|software WebGL/

/**
 * A page of a server. Whatever it writes to the console fails the test, unless `expected` matches it: a browser itself
 * reports each response that is an error.
 */
export async function open(
	test,
	url,
	{ width = 1440, height = 900, scheme = "light", expected, ready = true, ...more } = {},
) {
	browser ??= await chromium.launch({
		executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
		args: ["--no-sandbox", "--enable-unsafe-swiftshader", "--disable-dev-shm-usage"],
	})
	const context = await browser.newContext({
		viewport: { width, height },
		colorScheme: scheme,
		permissions: ["clipboard-read", "clipboard-write"],
		acceptDownloads: true,
		...more,
	})
	// Messages stay long enough to be seen on a machine that is busy.
	await context.addInitScript(() => {
		const set = window.setTimeout
		window.setTimeout = (act, ms, ...more) => set(act, ms > 5000 && ms <= 12_000 ? 20 * ms : ms, ...more)
	})
	const page = await context.newPage()
	page.setDefaultTimeout(LIMIT)
	const said = []
	page.on("console", message => said.push(`${message.type()}: ${message.text()}`))
	page.on("pageerror", error => said.push(`error: ${error.stack}`))
	test.after(async () => {
		// What a route is still asking for is nobody's any more.
		if (!page.isClosed()) await page.unrouteAll({ behavior: "ignoreErrors" })
		await context.close()
		const unexpected = said.filter(text => !OF_THE_BROWSER.test(text) && !expected?.test(text))
		assert.deepEqual(unexpected, [], "nothing is written to the console")
	})
	await page.goto(url)
	if (ready) await page.locator("html[data-ready]").waitFor({ state: "attached" })
	return page
}

/** Types a prompt and draws it with the keys. */
export async function draw(page, prompt) {
	await page.getByLabel("Prompt", { exact: true }).fill(prompt)
	await page.keyboard.press("Control+Enter")
}

/** The tile of a prompt in the history. */
export const tile = (page, prompt) => page.locator(".tile", { hasText: prompt })

/** A picture of the page, kept for people to look at. */
export async function shot(page, name) {
	mkdirSync(SHOTS, { recursive: true })
	await page.screenshot({ path: join(SHOTS, `${name}.png`), fullPage: true, animations: "disabled" })
}

/** A file that does not exist yet, for predictions that wait for it. */
let made = 0
export function gate() {
	const file = join(folder, `gate-${(made += 1)}`)
	assert.ok(!existsSync(file))
	return file
}
