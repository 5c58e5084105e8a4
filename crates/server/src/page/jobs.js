// Predictions that have not ended: those that wait to be sent, and those that the server has.
//
// What is drawn gets its id here, so that a request whose answer was lost can be repeated: nothing is lost or drawn twice.
// A browser opens six connections to a server at most, in all its tabs; so only two predictions are streamed, and the
// others are asked for now and then.

import { ask, events, json, path, Refused, reached, Unreachable } from "./api.js"
import { Event, sleep } from "./signal.js"

/** Streams of this tab. */
const MAX_STREAMS = 2
/** Milliseconds between two questions for the state of what is not streamed. */
const PAUSE = 1500

/** @type {Map<string, Job>} */
export const jobs = new Map()
/** A job is new, or something of it changed. @type {Event<Job>} */
export const changed = new Event()
/** A job is no longer one. @type {Event<string>} */
export const left = new Event()
/** A prediction ended. @type {Event<any>} */
export const ended = new Event()
/** A prediction was refused for what it asks for. @type {Event<{ job: Job, why: Refused }>} */
export const refused = new Event()

/** An id that nobody can guess. */
function random() {
	const bytes = crypto.getRandomValues(new Uint8Array(16))
	return "page_" + [...bytes].map(byte => byte.toString(16).padStart(2, "0")).join("")
}

/** @param {Partial<Job>} known @returns {Job} */
function add(known) {
	const job = /** @type {Job} */ ({
		id: random(),
		input: {},
		body: "",
		phase: "waiting",
		note: "",
		position: undefined,
		progress: null,
		step: 0,
		steps: 0,
		left: null,
		preview: "",
		logs: "",
		last: "",
		ending: false,
		example: false,
		created: new Date().toISOString(),
		stream: null,
		...known,
	})
	jobs.set(job.id, job)
	changed.emit(job)
	return job
}

function remove(/** @type {Job} */ job) {
	job.stream?.abort()
	if (jobs.delete(job.id)) left.emit(job.id)
	tend()
}

/**
 * Draws a picture: sends its input as soon as the server takes it.
 * @param {string} input as JSON @param {any} shown the same as an object @param {boolean} [example] @returns {Job}
 */
export function draw(input, shown, example = false) {
	const job = add({ body: `{"input":${input}}`, input: shown, phase: "sending", example })
	send()
	return job
}

let sending = false
/** @type {(() => void) | null} */
let hurry = null

/** Sends what waits, in order. What the server cannot take now is sent again; what it never will is given back. */
async function send() {
	if (sending) return
	sending = true
	for (let fails = 0; ; ) {
		const job = [...jobs.values()].find(job => job.body !== "")
		if (!job) break
		try {
			const headers = { "content-type": "application/json", prefer: "respond-async" }
			const known = await json(path(job.id), { method: "PUT", headers, body: job.body })
			fails = 0
			if (!jobs.has(job.id)) {
				// It was taken back while it was on its way.
				cancel(job.id)
				continue
			}
			job.body = ""
			adopt(known)
		} catch (error) {
			const again =
				error instanceof Unreachable ||
				(error instanceof Refused && [408, 409, 429, 500, 502, 503, 504].includes(error.status))
			if (!again) {
				remove(job)
				refused.emit({ job, why: error instanceof Refused ? error : new Refused(0, { detail: String(error) }, null) })
				continue
			}
			fails += 1
			const wait = Math.min((error instanceof Refused && error.after) || 2 ** Math.min(fails, 4), 30)
			job.note =
				error instanceof Refused
					? `${sentence(error)}. It is sent again by itself.`
					: "The server cannot be reached. It is sent as soon as the server is back."
			changed.emit(job)
			await Promise.race([sleep(wait * 1000), new Promise(go => (hurry = () => go(undefined)))])
			hurry = null
		}
	}
	sending = false
}

/** Tries at once what waits to be sent again. */
export const hasten = () => hurry?.()

/** What the server refused with, as a sentence. @param {Refused} error */
function sentence(error) {
	return error.status === 429
		? "The queue is full"
		: error.message.replace(/\.+$/, "").replace(/^./, first => first.toUpperCase())
}

/** Takes a prediction of the server: follows it if it has not ended. @param {any} known @returns {boolean} whether it goes on */
export function adopt(known) {
	const job = jobs.get(known.id)
	if (["succeeded", "failed", "canceled"].includes(known.status)) {
		if (job) remove(job)
		ended.emit(known)
		return false
	}
	const { metrics = {} } = known
	const state = {
		input: known.input,
		created: known.created_at,
		/** @type {Job["phase"]} */
		phase: known.status === "processing" ? "running" : "waiting",
		note: "",
		position: metrics.queue_position,
		left: metrics.seconds_left ?? null,
		progress: metrics.progress ?? null,
		step: metrics.step ?? 0,
		steps: metrics.steps ?? 0,
		logs: known.logs,
	}
	if (job) {
		if (job.stream && job.phase === "running") delete (/** @type {any} */ (state).logs)
		changed.emit(Object.assign(job, state))
	} else add({ id: known.id, ...state })
	tend()
	return true
}

/** Stops a prediction, or takes back one that was not sent. @param {string} id */
export async function cancel(id) {
	const job = jobs.get(id)
	if (job?.body) {
		remove(job)
		hasten()
		return
	}
	if (job) changed.emit(Object.assign(job, { ending: true }))
	await ask(path(id) + "/cancel", { method: "POST" }).catch(() => {
		if (job)
			changed.emit(
				Object.assign(job, { ending: false, note: "It could not be stopped: the server cannot be reached." }),
			)
	})
}

/** Those that the server has, the one that runs or comes next first. */
const accepted = () =>
	[...jobs.values()]
		.filter(job => !job.body)
		.sort((a, b) => Number(b.phase === "running") - Number(a.phase === "running") || a.created.localeCompare(b.created))

let tending = false

/** Opens streams while there is room, and asks for the others. */
export function tend() {
	const open = accepted().filter(job => job.stream).length
	const limit = document.hidden ? 1 : MAX_STREAMS
	for (const job of accepted()
		.filter(job => !job.stream)
		.slice(0, Math.max(0, limit - open)))
		follow(job)
	if (!tending) poll()
}

async function poll() {
	tending = true
	for (;;) {
		await sleep(PAUSE)
		const due = accepted().filter(job => !job.stream || job.phase === "waiting")
		if (due.length === 0) break
		const queue = due.length > 2 ? await json("predictions?status=starting&limit=100").catch(() => null) : null
		const listed = new Map((queue?.results ?? []).map(one => [one.id, one]))
		for (const job of due) {
			if (listed.has(job.id)) adopt(listed.get(job.id))
			else await look(job)
		}
	}
	tending = false
}

/** Asks for the state of a job. @param {Job} job */
async function look(job) {
	try {
		adopt(await json(path(job.id)))
	} catch (error) {
		if (error instanceof Refused && error.status === 404) {
			remove(job)
			ended.emit({
				id: job.id,
				input: job.input,
				status: "failed",
				gone: true,
				created_at: job.created,
				metrics: {},
				logs: "",
				error: "the server no longer has this prediction; it was deleted elsewhere, or the server lost its data",
			})
		}
	}
}

/** Follows the events of a job until it ends, through breaks of the connection. @param {Job} job */
async function follow(job) {
	const control = (job.stream = new AbortController())
	while (jobs.get(job.id) === job && !control.signal.aborted) {
		try {
			/** @type {Record<string, string>} */
			const headers = { prefer: "preview", ...(job.last && { "last-event-id": job.last }) }
			for await (const { name, data, id } of events(path(job.id) + "/stream?preview=true", headers, control.signal)) {
				if (id) job.last = id
				if (name === "completed") {
					adopt(data)
					return
				}
				if (name === "error") break
				hear(job, name, data)
			}
		} catch {
			// The connection broke, or the server is gone; both are said elsewhere.
		}
		if (control.signal.aborted) return
		await look(job)
		await sleep(1000)
	}
}

function hear(/** @type {Job} */ job, name, data) {
	if (name === "start") Object.assign(job, { phase: "running", position: undefined })
	else if (name === "log") job.logs += data.data
	else if (name === "progress")
		Object.assign(job, {
			phase: "running",
			progress: data.progress,
			step: data.step,
			steps: data.steps,
			left: data.seconds_left,
		})
	else if (name === "preview") job.preview = data.image
	else return
	if (name !== "log") changed.emit(job)
}

document.addEventListener("visibilitychange", tend)
reached.watch(() => {
	for (const job of jobs.values()) changed.emit(job)
})
