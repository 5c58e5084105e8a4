// Requests to the server. Each carries the token, if there is one; where one is needed, the request waits until it is
// given, so nothing has to be done again.

import { signal } from "./signal.js"

/** The server answered, but not with what was asked for. */
export class Refused extends Error {
	/** @param {number} status @param {any} body @param {string | null} after */
	constructor(status, body, after) {
		const detail = body?.detail
		super(body?.error ?? (typeof detail === "string" ? detail : `the server answered with status ${status}`))
		this.status = status
		/** @type {{ loc: string[], msg: string }[]} */
		this.details = Array.isArray(detail) ? detail : []
		this.after = after === null ? null : Number(after)
	}
}

/** The server cannot be reached. */
export class Unreachable extends Error {
	constructor() {
		super("the server cannot be reached")
	}
}

/** The token of this tab. @type {Signal<string>} */
export const token = signal(sessionStorage.getItem("token") ?? "")
/** What the server says while it waits for a token; empty if it has what it needs. @type {Signal<string>} */
export const wanted = signal("")
/** Whether the last request reached the server. @type {Signal<boolean>} */
export const reached = signal(true)

/** @type {(() => void)[]} */
const waiting = []

/** Takes a token and lets the requests that wait for it go on. @param {string} text */
export function give(text) {
	sessionStorage.setItem("token", text.trim())
	token.value = text.trim()
	wanted.value = ""
	for (const go of waiting.splice(0)) go()
}

/** The path of a prediction. @param {string} id */
export const path = id => `predictions/${encodeURIComponent(id)}`

/**
 * Asks, and waits for a token where one is needed.
 * @param {string} url @param {RequestInit & { patient?: boolean }} [options]
 * @returns {Promise<Response>}
 */
export async function ask(url, options = {}) {
	const { patient = true, ...rest } = options
	for (;;) {
		const used = token.value
		const headers = { ...rest.headers, ...(used && { authorization: `Bearer ${used}` }) }
		let answer
		try {
			answer = await fetch(url, { ...rest, headers })
		} catch (error) {
			if (rest.signal?.aborted) throw error
			if (reached.value) reached.value = false
			throw new Unreachable()
		}
		if (!reached.value) reached.value = true
		if (answer.ok) return answer
		const body = await answer.json().catch(() => null)
		if (answer.status !== 401 || !patient) throw new Refused(answer.status, body, answer.headers.get("retry-after"))
		if (used === token.value) {
			wanted.value = used
				? "The token is no longer valid here. Give another one; nothing you typed is lost."
				: "This server needs a token."
			await new Promise(go => waiting.push(() => go(undefined)))
		}
	}
}

/** The JSON of an answer. A seed may be larger than a double can hold; such a one stays text. @param {string} text */
export const parse = text => JSON.parse(text.replace(/"seed":\s*(\d{16,})/g, '"seed":"$1"'))

/** @param {string} url @param {RequestInit & { patient?: boolean }} [options] @returns {Promise<any>} */
export async function json(url, options) {
	return parse(await (await ask(url, options)).text())
}

/**
 * The events of a prediction, as `EventSource` reads them, which cannot send a token. Ends with the connection.
 * @param {string} url @param {Record<string, string>} headers @param {AbortSignal} signal
 * @returns {AsyncGenerator<{ name: string, data: any, id: string }>}
 */
export async function* events(url, headers, signal) {
	const answer = await ask(url, { headers, signal })
	if (!answer.body || answer.status === 204) return
	const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader()
	let text = ""
	for (;;) {
		const { value, done } = await reader.read()
		if (done) return
		const frames = (text + value).split("\n\n")
		text = frames.pop() ?? ""
		for (const frame of frames) {
			const lines = frame.split("\n")
			const of = name =>
				lines
					.filter(line => line.startsWith(name + ": "))
					.map(line => line.slice(name.length + 2))
					.join("\n")
			if (of("event")) yield { name: of("event"), data: parse(of("data")), id: of("id") }
		}
	}
}
