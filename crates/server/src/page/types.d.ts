// Types of the scripts, for the type checker. Browsers do not load this file.

interface Signal<T> {
	value: T
	watch: (act: (value: T) => void) => () => void
}

/** An input, as the schema has it. */
interface Field {
	name: string
	type: string
	title: string
	description: string
	default?: any
	enum?: any[]
	minimum?: number
	maximum?: number
	format?: string
	items?: any
	"x-order"?: number
}

interface Schema {
	fields: Field[]
	paths: Record<string, any>
	document: any
}

/** What shows an input, which is left out as long as it is empty. */
interface Control {
	node: HTMLElement
	/** What gets the focus. */
	entry: any
	/** The value as JSON; empty if it is left out. */
	read: () => string
	/** `undefined` leaves the input out. */
	write: (value: any) => void
}

/** Names of inputs and their values as JSON. */
type Entries = [string, string][]

/** A prediction that has not ended. */
interface Job {
	id: string
	input: any
	/** What is sent; empty once the server has it. */
	body: string
	phase: "sending" | "waiting" | "running"
	/** Why it is not sent yet. */
	note: string
	position: number | undefined
	progress: number | null
	step: number
	steps: number
	left: number | null
	preview: string
	logs: string
	/** The id of the last event. */
	last: string
	ending: boolean
	example: boolean
	created: string
	stream: AbortController | null
}

/** What a viewer shows; `soft` is a preview. */
interface Picture {
	url: string
	width: number
	height: number
	loop: boolean
	label: string
	soft?: boolean
}

/** What code is written from. */
interface Told {
	entries: Entries
	base: string
	/** How the name of the file ends. */
	end: string
	token: boolean
	model: string
}
