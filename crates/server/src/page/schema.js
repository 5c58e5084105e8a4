// What the server takes: its inputs, in order, and its routes.

import { json } from "./api.js"

/** @returns {Promise<Schema>} */
export async function load() {
	const document = await json("openapi.json")
	const properties = document.components.schemas.Input.properties
	const fields = Object.entries(properties)
		.map(([name, field]) => ({ ...field, name }))
		.sort((a, b) => a["x-order"] - b["x-order"])
	return { fields, paths: document.paths, document }
}

/** Whether an operation takes a parameter. @param {Schema} schema @param {string} path @param {string} name */
export function takes(schema, path, name) {
	const parameters = schema.paths[`/${path}`]?.get?.parameters ?? []
	return parameters.some(parameter => parameter.name === name)
}

/** Whether an input is a picture. @param {Field} field */
export const isPicture = field =>
	field.type === "string" && (field.format === "uri" || /(^|_)image(_|$)/.test(field.name))

/**
 * Inputs that have a place; those of others, and new ones, are under "More".
 * @type {[string, string, string[]][]}
 */
export const GROUPS = [
	["Pictures", "Continue or imitate a picture of yours.", ["image", "image_left", "anchor_image", "strength"]],
	["Words", "What to avoid, and how closely to follow the words.", ["negative_prompt", "guidance_scale", "prompts"]],
	["Exact size", "Any size that the model can draw.", ["width", "height", "loop_closure"]],
	[
		"Synchronisation",
		"How the windows come to agree with the one in the middle.",
		["sync_weight", "sync_decay_rate", "sync_freq", "sync_threshold", "sync_mode"],
	],
	["Sampling", "How noise becomes a picture.", ["num_inference_steps", "scheduler", "stride", "blend"]],
	["File", "What is written.", ["output_format", "output_quality"]],
]

/** Inputs with a place of their own on the page. */
export const APART = ["prompt", "seamless", "preset", "seed", "num_outputs"]

/** The groups that have inputs here. @param {Field[]} fields @returns {{ title: string, about: string, fields: Field[] }[]} */
export function groups(fields) {
	const known = new Set([...APART, ...GROUPS.flatMap(([, , names]) => names)])
	const found = GROUPS.map(([title, about, names]) => ({
		title,
		about,
		fields: fields.filter(
			field => names.includes(field.name) || (title === "Pictures" && isPicture(field) && !known.has(field.name)),
		),
	}))
	const more = fields.filter(field => !known.has(field.name) && !isPicture(field))
	return [...found, { title: "More", about: "What this server takes besides.", fields: more }].filter(
		group => group.fields.length > 0,
	)
}
