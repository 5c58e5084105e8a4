"""Makes one Markdown document of the measurements of run.sh: `table.py FOLDER`. Needs nothing but Python."""

import json
import statistics
import sys
from pathlib import Path

# What was assumed of an H100 and an A40 when the changes for a GPU were chosen, beside what measures it: the mean TFLOP/s (or TB/s) of
# the operations whose name begins so, in this dtype.
ASSUMED_RATES = [
    ("convolutions in f16", "convolution forward", "f16", "tflops", 500, 92),
    ("convolutions backward in f16", "convolution backward", "f16", "tflops", 400, 74),
    ("convolutions in TF32", "convolution forward", "tf32", "tflops", 220, 42),
    ("linear layers in f16", "linear", "f16", "tflops", 450, 90),
    ("a product of 8192 in f16", "product", "f16", "tflops", 798, None),
    ("attention in f16", "attention forward 26", "f16", "tflops", 380, 62),
    ("copies", "copy", "f16", "tb_per_s", 2.6, 0.58),
    ("norm and SiLU, read and written once", "norm and SiLU forward", "f16", "tb_per_s", None, None),
]

# Seconds: of the default job by this program in f16, of the first job after the warm-up, and of the eager original.
GOALS = {"warm": ("<= 5", "<= 25"), "first": ("<= 8", ""), "small": ("<= 0.4", ""), "eager": ("30 to 38", "60 to 75")}


def main() -> None:
    folder = Path(sys.argv[1])
    records = [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]
    of = lambda kind: [record for record in records if record["record"] == kind]
    sections = [
        head(of("gpu"), of("stage")), jobs(of("job")), reference(of("reference")), exactness(of("check")), assumptions(records),
        kernels(folder, of("reference")), micro(of("micro")),
    ]
    print("\n\n".join("\n".join(section) for section in sections if section))


def table(title: str, columns: list[str], rows: list[list], notes: tuple[str, ...] = ()) -> list[str]:
    if not rows:
        return [f"## {title}", "", "Nothing was measured."]
    line = lambda cells: "| " + " | ".join("" if cell is None else str(cell) for cell in cells) + " |"
    return [f"## {title}", "", *(f"{note}\n" for note in notes), line(columns), "|" + "---|" * len(columns), *map(line, rows)]


def number(value: float | None, digits: int = 3) -> str:
    return "" if value is None else f"{value:.{digits}g}"


def gibibytes(value: float | None) -> str:
    return "" if not value else f"{value / 2**30:.1f}"


def head(gpus: list[dict], stages: list[dict]) -> list[str]:
    names = [f"{gpu['name']}, driver {gpu['driver']}, {gpu['clock']}, {gpu['power']}, {gpu['memory']}" for gpu in gpus]
    rows = [[stage["name"], stage["code"], stage["seconds"], stage["limit"]] for stage in stages]
    notes = ("Code 124 means that the time was up; what was measured until then is below.",)
    return [f"# {', '.join(names) or 'A CPU'}", "", *table("Stages", ["stage", "code", "seconds", "limit"], rows, notes)]


def jobs(jobs: list[dict]) -> list[str]:
    rows = []
    base = next((job for job in jobs if job["name"] == "sweep: base"), None)
    for job in jobs:
        place, stages = job["place"], job["stages"]
        warm = min(job["seconds"][1:], default=None)
        per_window = lambda stage: (
            1000 * stages[stage]["seconds"] / stages[stage]["windows"] if stage in stages and stages[stage]["windows"] else None
        )
        ratio = None
        if base and job["name"].startswith("sweep") and job is not base:
            ratio = min(job["seconds"]) / min(base["seconds"])
        rows.append([
            job["name"], "x".join(map(str, job["size"])), job["steps"], job["syncs"], place["dtype"], place["pictures"],
            number(job["warm_up_seconds"]), number(job["seconds"][0]), number(warm), number(ratio), number(per_window("denoise")),
            number(per_window("synchronise")), number(per_window("target")), number(per_window("decode")), gibibytes(job["peak_bytes"]),
            number(job["psnr"]), "FLAT" if job["flat"] else "",
        ])
    columns = [
        "job", "size", "steps", "sync", "dtype", "decoder", "warm-up, s", "first, s", "later, s", "to base", "UNet, ms a window",
        "gradient, ms a window", "target, ms", "decode, ms", "GiB", "PSNR, dB", "",
    ]
    return table("Jobs", columns, rows, ("PSNR is that to the base of the sweep, to the default job, or to f32.",))


def reference(records: list[dict]) -> list[str]:
    rows = []
    for record in records:
        if "kernels" in record or "seconds" not in record:
            continue
        keys = ("mode", "batch", "channels_last", "windows", "steps", "syncs")
        shape = ", ".join(f"{key} {record[key]}" for key in keys if record.get(key) not in (None, ""))
        rows.append([record["what"], shape, number(record.get("first_seconds")), number(record["seconds"], 4), number(record.get("error"))])
    return table("The Python original", ["what", "shape", "first, s", "s", "error to eager"], rows)


def exactness(checks: list[dict]) -> list[str]:
    rows = []
    for check in checks:
        place = check["place"]
        errors = [number(check[key], 2) for key in ("text_encoder", "unet", "decoder", "perceptual", "latents")]
        dtype = place["dtype"] + (" as TF32" if place["tf32"] else "")
        rows.append([check["bundle"], dtype, place["pictures"], *errors, f"{100 * check['share']:.3f} %", number(check["psnr"])])
    columns = ["bundle", "dtype", "decoder", "text encoder", "UNet", "decoder", "LPIPS gradient", "latents", "bytes within 1", "PSNR, dB"]
    note = "The largest relative errors over all fixtures. In f32 without TF32 they are to be below 1e-4, of latents below 3e-4."
    return table("Exactness", columns, rows, (note,))


def named(records: list[dict], kind: str, key: str, name: str) -> dict | None:
    return next((record for record in records if record["record"] == kind and record[key] == name), None)


def assumptions(records: list[dict]) -> list[str]:
    rows = []
    job = lambda name: named(records, "job", "name", name)
    warm = lambda record: min(record["seconds"][1:]) if record and len(record["seconds"]) > 1 else None
    ours, cold, cudnn = job("default job"), job("default job, not warmed up"), job("default job, cuDNN's attention")
    small, eager = job("512x512"), named(records, "reference", "what", "eager job, from its steps")
    rows.append(["default job, warm, s", *GOALS["warm"], number(warm(ours))])
    rows.append(["default job, first after the warm-up, s", *GOALS["first"], number(ours and ours["seconds"][0])])
    rows.append(["the same without a warm-up, s", "+ 1 to 5", "", number(cold and cold["seconds"][0])])
    rows.append(["the same with cuDNN's attention, which plans for each shape, s", "+ 26", "+ 0", number(cudnn and cudnn["seconds"][0])])
    rows.append(["512x512, warm, s", *GOALS["small"], number(warm(small))])
    rows.append(["default job of the eager original, s", *GOALS["eager"], number(eager and eager["seconds"])])
    rows.append(["its time to that of ours", ">= 6", "", number(eager["seconds"] / warm(ours)) if eager and warm(ours) else ""])
    base, half = job("sweep: decoder in f32 as TF32"), job("sweep: base")
    rows.append(["share of decoder and LPIPS saved by f16", "0.23", "0.22", number(1 - warm(half) / warm(base)) if warm(base) and warm(half) else ""])
    for name, what in [
        ("channels-last", "channels-last alone"), ("upsampling nearest", "upsampling by nearest + 3x3"), ("upsampling four", "upsampling by four 2x2"),
        ("benchmark", "cuDNN's benchmark"), ("checkpointing", "gradient checkpointing"),
    ]:
        other = job(f"sweep: {name}")
        assumed = {"channels-last": "0.9 to 1.0", "checkpointing": "1.03"}.get(name, "")
        rows.append([f"{what}: time to base", assumed, "", number(warm(other) / warm(half)) if warm(other) and warm(half) else ""])
    if ours and "denoise" in ours["stages"]:
        stage = ours["stages"]["denoise"]
        rows.append(["host time of one batch of the UNet, ms", "4 to 5", "4 to 5", number(1000 * stage["host_seconds"] / stage["batches"])])
        compiled = [r["seconds"] for r in records if r["record"] == "reference" and r["what"] == "UNet, compiled" and r["batch"] > 2]
        if compiled:
            rows.append(["our UNet at full width to the compiled one", "<= 1.1", "", number(stage["seconds"] / stage["batches"] / compiled[0])])
    micros = [record for record in records if record["record"] == "micro" and "error" not in record]
    for what, begin, dtype, key, h100, a40 in ASSUMED_RATES:
        values = [m[key] for m in micros if m["what"].startswith(begin) and m["dtype"] == dtype and m.get(key) and m["layout"] != "cudnn"]
        unit = "TFLOP/s" if key == "tflops" else "TB/s"
        spread = f"{min(values):.3g} to {max(values):.3g}, median {statistics.median(values):.3g}" if values else ""
        rows.append([f"{what}, {unit}", h100, a40, spread])
    plans = [m["first_ms"] - m["ms"] for m in micros if m["layout"] == "cudnn" and m["what"].startswith("attention forward 26")]
    rows.append(["a plan of cuDNN's attention, ms", "440 to 550", "0", number(statistics.median(plans)) if plans else ""])
    return table("Assumptions", ["what", "assumed, H100", "assumed, A40", "measured"], rows)


def kernels(folder: Path, references: list[dict]) -> list[str]:
    lines = []
    profile = folder / "profile.tsv"
    if profile.exists():
        entries = [line.split("\t", 2) for line in profile.read_text().splitlines()]
        entries = sorted(((float(seconds), int(count), name) for seconds, count, name in entries), reverse=True)
        total = sum(seconds for seconds, _, _ in entries)
        rows = [[code(name), count, number(1000 * seconds), f"{100 * seconds / total:.1f} %"] for seconds, count, name in entries[:20]]
        lines += table("Dearest kernels of a short job", ["kernel", "calls", "ms", "share"], rows)
    for record in references:
        if "kernels" in record:
            rows = [[code(kernel["name"]), kernel["count"], number(1000 * kernel["seconds"])] for kernel in record["kernels"]]
            lines += ["", *table(record["what"].capitalize(), ["kernel", "calls", "ms"], rows)]
    return lines


def code(name: str) -> str:
    short = name if len(name) <= 100 else name[:97] + "..."
    return f"`{short.replace('|', ' ').replace('`', ' ')}`"


def micro(records: list[dict]) -> list[str]:
    rows = [
        [m["what"], m["dtype"], m["layout"], *(number(m.get(key)) for key in ("first_ms", "ms", "tflops", "tb_per_s")), m.get("error", "")]
        for m in records
    ]
    return table("Single operations", ["operation", "dtype", "layout", "first, ms", "ms", "TFLOP/s", "TB/s", ""], rows)


if __name__ == "__main__":
    main()
