// What a picture that was made here says about itself: the inputs that it was made from.

/** The keyword of the chunk with the inputs as JSON. */
const KEYWORD = "prediction"

/**
 * The inputs of a picture, or `null` if it was not made here.
 * @param {Blob} file @returns {Promise<any>}
 */
export async function inputs(file) {
	const bytes = new Uint8Array(await file.arrayBuffer())
	for (const text of [...(await chunks(bytes)), ...embedded(bytes)]) {
		try {
			const input = JSON.parse(text.replace(/"seed":\s*(\d{16,})/g, '"seed":"$1"'))
			if (input && typeof input === "object" && "prompt" in input) return input
		} catch {
			// Some other text.
		}
	}
	return null
}

/** Inputs that say something about a picture that is given. @type {Record<string, string[]>} */
const ABOUT = { image: ["image_left", "strength"] }

/**
 * Inputs without the pictures of which only the hash is known, and without what is about these; and which pictures.
 * @param {any} input @param {string[]} pictures the inputs that are pictures
 * @returns {{ input: any, missing: string[] }}
 */
export function withoutHashes(input, pictures) {
	const missing = pictures.filter(name => String(input[name]).startsWith("sha256:"))
	const left = { ...input }
	for (const name of missing.flatMap(name => [name, ...(ABOUT[name] ?? [])])) delete left[name]
	return { input: left, missing }
}

const latin = new TextDecoder("latin1")
const utf8 = new TextDecoder()

/** The texts of a PNG under the keyword. @param {Uint8Array} bytes @returns {Promise<string[]>} */
async function chunks(bytes) {
	const signature = [137, 80, 78, 71, 13, 10, 26, 10]
	if (!signature.every((byte, at) => bytes[at] === byte)) return []
	const view = new DataView(bytes.buffer, bytes.byteOffset)
	const texts = []
	for (let at = 8; at + 12 <= bytes.length; ) {
		const length = view.getUint32(at)
		const kind = latin.decode(bytes.subarray(at + 4, at + 8))
		const data = bytes.subarray(at + 8, at + 8 + length)
		at += 12 + length
		const end = data.indexOf(0)
		if (!["tEXt", "iTXt", "zTXt"].includes(kind) || latin.decode(data.subarray(0, Math.max(end, 0))) !== KEYWORD)
			continue
		let [rest, packed] = [data.subarray(end + 1), kind === "zTXt"]
		if (kind === "zTXt") rest = rest.subarray(1)
		if (kind === "iTXt") {
			packed = rest[0] === 1
			// After two flags come a language and a translation of the keyword, each with a zero at its end.
			rest = rest.subarray(2)
			for (let skipped = 0; skipped < 2; skipped += 1) rest = rest.subarray(rest.indexOf(0) + 1)
		}
		if (packed)
			rest = new Uint8Array(
				await new Response(
					new Blob([/** @type {any} */ (rest)]).stream().pipeThrough(new DecompressionStream("deflate")),
				).arrayBuffer(),
			)
		texts.push((kind === "iTXt" ? utf8 : latin).decode(rest))
	}
	return texts
}

/** JSON of inputs anywhere in the head of another format, as XMP or EXIF has it. @param {Uint8Array} bytes @returns {string[]} */
function embedded(bytes) {
	const found = []
	for (const part of [bytes.subarray(0, 1 << 18), bytes.subarray(Math.max(0, bytes.length - (1 << 18)))]) {
		const text = utf8.decode(part)
		for (let from = text.search(/\{\s*(&quot;|")[a-z_]+\1\s*:/); from >= 0; ) {
			found.push(balanced(unescaped(text.slice(from))))
			const next = text.slice(from + 1).search(/\{\s*(&quot;|")[a-z_]+\1\s*:/)
			from = next < 0 || found.length > 20 ? -1 : from + 1 + next
		}
	}
	return found
}

const unescaped = text =>
	text
		.replaceAll("&quot;", '"')
		.replaceAll("&apos;", "'")
		.replaceAll("&lt;", "<")
		.replaceAll("&gt;", ">")
		.replaceAll("&#13;", "\r")
		.replaceAll("&amp;", "&")

/** The object at the start of a text, without what follows it. */
function balanced(text) {
	let [depth, quoted] = [0, false]
	for (let at = 0; at < text.length; at += 1) {
		const letter = text[at]
		if (quoted) {
			if (letter === "\\") at += 1
			else if (letter === '"') quoted = false
		} else if (letter === '"') quoted = true
		else if (letter === "{") depth += 1
		else if (letter === "}" && --depth === 0) return text.slice(0, at + 1)
	}
	return ""
}
