// Values that others watch.

/** @template T @param {T} value @returns {Signal<T>} */
export function signal(value) {
	/** @type {Set<(value: T) => void>} */
	const watchers = new Set()
	return {
		get value() {
			return value
		},
		set value(next) {
			value = next
			for (const act of [...watchers]) act(value)
		},
		watch(act) {
			watchers.add(act)
			act(value)
			return () => watchers.delete(act)
		},
	}
}

/** Something that happens, and who listens. @template T */
export class Event {
	/** @type {Set<(value: T) => void>} */
	#listeners = new Set()

	/** @param {(value: T) => void} act */
	on(act) {
		this.#listeners.add(act)
	}

	/** @param {T} value */
	emit(value) {
		for (const act of [...this.#listeners]) act(value)
	}
}

/** @param {number} ms @returns {Promise<void>} */
export const sleep = ms => new Promise(done => setTimeout(done, ms))
