// A loop seen from inside: the picture on a cylinder, drawn by one shader.

import { el } from "./dom.js"

const VERTICES = `#version 300 es
in vec2 at;
out vec2 seen;
void main() {
  seen = at;
  gl_Position = vec4(at, 0.0, 1.0);
}`

// A ray through a pixel meets the cylinder at an angle, which is where in the picture, and at a height.
const PIXELS = `#version 300 es
precision highp float;
in vec2 seen;
out vec4 color;
uniform sampler2D picture;
uniform vec2 view;   // half of what is seen, as tangents
uniform vec2 look;   // turn in radians, and lift
uniform float high;  // half the height of the picture for a radius of 1
uniform vec3 paper;
void main() {
  vec2 ray = seen * view;
  float turn = atan(ray.x) + look.x;
  // The cylinder is of radius 1, so the point is cos(angle) in front of the eye.
  float height = (ray.y + look.y) / sqrt(1.0 + ray.x * ray.x);
  vec2 at = vec2(turn / 6.28318530718, 0.5 - 0.5 * height / high);
  // The jump where the angle begins again must not choose a coarse level.
  vec3 drawn = textureGrad(picture, at, vec2(dFdx(ray.x) / 6.28318530718, 0.0), vec2(0.0, dFdy(at.y))).rgb;
  color = vec4(at.y < 0.0 || at.y > 1.0 ? paper : drawn, 1.0);
}`

export class Cylinder {
	#turn = 0
	#lift = 0
	#reach = 1

	/**
	 * Draws a picture over a view; `null` where there is no WebGL 2.
	 * @param {HTMLElement} view @param {Picture} picture
	 */
	static create(view, picture) {
		const canvas = el("canvas", { class: "round", role: "img", "aria-label": `${picture.label}, seen from inside` })
		const gl = canvas.getContext("webgl2", { antialias: false })
		if (!gl) return null
		view.append(canvas)
		return new Cylinder(view, canvas, gl, picture)
	}

	/** @param {HTMLElement} view @param {HTMLCanvasElement} canvas @param {WebGL2RenderingContext} gl @param {Picture} picture */
	constructor(view, canvas, gl, picture) {
		this.view = view
		this.canvas = canvas
		this.gl = gl
		// Half the height of the picture, for a cylinder with its width as circumference.
		this.high = (Math.PI * picture.height) / picture.width
		this.reset()
		const program = gl.createProgram()
		for (const [kind, text] of /** @type {[number, string][]} */ ([
			[gl.VERTEX_SHADER, VERTICES],
			[gl.FRAGMENT_SHADER, PIXELS],
		])) {
			const shader = /** @type {WebGLShader} */ (gl.createShader(kind))
			gl.shaderSource(shader, text)
			gl.compileShader(shader)
			gl.attachShader(program, shader)
		}
		gl.linkProgram(program)
		gl.useProgram(program)
		this.place = name => gl.getUniformLocation(program, name)
		gl.bindBuffer(gl.ARRAY_BUFFER, gl.createBuffer())
		gl.bufferData(gl.ARRAY_BUFFER, new Float32Array([-1, -1, 3, -1, -1, 3]), gl.STATIC_DRAW)
		const at = gl.getAttribLocation(program, "at")
		gl.enableVertexAttribArray(at)
		gl.vertexAttribPointer(at, 2, gl.FLOAT, false, 0, 0)
		const image = new Image()
		image.onload = () => {
			gl.bindTexture(gl.TEXTURE_2D, gl.createTexture())
			gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA, gl.RGBA, gl.UNSIGNED_BYTE, image)
			gl.generateMipmap(gl.TEXTURE_2D)
			gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MIN_FILTER, gl.LINEAR_MIPMAP_LINEAR)
			gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_WRAP_S, gl.REPEAT)
			gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_WRAP_T, gl.CLAMP_TO_EDGE)
			canvas.dataset.drawn = "true"
			this.draw()
		}
		image.src = picture.url
	}

	remove() {
		this.canvas.remove()
		this.gl.getExtension("WEBGL_lose_context")?.loseContext()
	}

	reset() {
		this.#turn = Math.PI
		this.#lift = 0
		// The picture is as high as the view.
		this.#reach = Math.min(this.high, 1)
		this.draw()
	}

	/** @param {number} by */
	zoom(by) {
		this.#reach = Math.min(Math.max(this.#reach / by, 0.15), 1.2)
		this.draw()
	}

	/** Turns as the picture follows the pointer, in pixels of the view. @param {number} x @param {number} y */
	move(x, y) {
		const pixel = (2 * this.#reach) / Math.max(this.view.clientHeight, 1)
		this.#turn -= x * pixel
		const room = Math.max(0, this.high - this.#reach)
		this.#lift = Math.min(room, Math.max(-room, this.#lift + y * pixel))
		this.draw()
	}

	/** The turn, in radians. */
	get turn() {
		return this.#turn
	}

	draw() {
		const { gl, canvas, view } = this
		if (!canvas?.dataset.drawn || !this.place) return
		canvas.width = Math.round(view.clientWidth * devicePixelRatio)
		canvas.height = Math.round(view.clientHeight * devicePixelRatio)
		canvas.dataset.turn = this.#turn.toFixed(3)
		gl.viewport(0, 0, canvas.width, canvas.height)
		gl.uniform2f(this.place("view"), (this.#reach * canvas.width) / Math.max(canvas.height, 1), this.#reach)
		gl.uniform2f(this.place("look"), this.#turn, this.#lift)
		gl.uniform1f(this.place("high"), this.high)
		gl.uniform3f(this.place("paper"), 0.05, 0.06, 0.09)
		gl.drawArrays(gl.TRIANGLES, 0, 3)
	}
}
