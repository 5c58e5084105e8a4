// What numbers and states are in words.

/** @param {number} count @param {string} one @param {string} [many] */
export const count = (count, one, many = one + "s") => `${count} ${count === 1 ? one : many}`

/** A duration as people say it. @param {number} seconds */
export function duration(seconds) {
	if (seconds < 10) return `${Math.max(0, seconds).toFixed(1)} s`
	if (seconds < 90) return `${Math.round(seconds)} s`
	if (seconds < 5400) return `${Math.round(seconds / 60)} min`
	return `${(seconds / 3600).toFixed(1)} h`
}

/** How long something still takes. @param {number | null | undefined} seconds */
export function left(seconds) {
	if (seconds === null || seconds === undefined) return ""
	return seconds < 1.5 ? "nearly done" : `about ${seconds < 10 ? `${Math.ceil(seconds)} s` : duration(seconds)} left`
}

/** How long ago something was. @param {string} time */
export function ago(time) {
	const seconds = (Date.now() - Date.parse(time)) / 1000
	if (!(seconds >= 60)) return "just now"
	if (seconds < 3600) return `${Math.round(seconds / 60)} min ago`
	if (seconds < 86400) return `${Math.round(seconds / 3600)} h ago`
	return new Date(time).toLocaleDateString(undefined, { day: "numeric", month: "short", year: "numeric" })
}

/** The place in the queue. @param {number | undefined} before */
export function place(before) {
	if (before === undefined || before === null) return "waiting"
	return before === 0 ? "next in the queue" : `${count(before, "picture")} before it`
}

/** A name for a file, from a prompt. @param {any} input */
export function fileName(input) {
	const words = String(input.prompt ?? "")
		.toLowerCase()
		.replace(/[^\p{L}\p{N}]+/gu, "-")
		.replace(/^-|-$/g, "")
		.slice(0, 60)
	return `${words || "panorama"}-${input.seed ?? 0}`
}

/** Words in the place of a name with underscores. @param {string} name */
export const plain = name => name.replaceAll("_", " ").replace(/^./, first => first.toUpperCase())
