"""Times `syncdiffusion generate` against the Python reference: the same job, in turn, on the same machine.

    bench.py [--runs N] [--model DIR ...] [--before PROGRAM] [-- FLAGS OF A JOB]

Prints a Markdown table: seconds of sampling (without loading) as median and range, the ratio pair by pair, and peak memory.
Each pair also compares the two pictures, so that a program cannot be fast by drawing something else. `--before` adds
another build of `syncdiffusion` to the table, and prints the ratio of both after it. `--fast` adds the same job with `--preset fast`,
whose picture is another one and therefore not compared.
"""

import argparse
import json
import os
import platform
import shlex
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
OURS = ROOT / "target/release/syncdiffusion"
DEFAULT_JOB = ["--prompt", "a photo of a mountain range at twilight"]


def run(command: list[str]) -> dict:
    """The JSON that a command prints as its last line."""
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"`{' '.join(command)}` failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def ours(program: Path, model: str, device: str, dtype: str, job: list[str], output: Path) -> dict:
    return run([str(program), "generate", "--model", model, "--device", device, "--dtype", dtype, "--json", "--output", str(output), *job])


def reference(model: str, device: str, dtype: str, threads: int, job: list[str], output: Path) -> dict:
    folder = str(ROOT / "models/demo") if model == "demo" else model
    return run([
        sys.executable, str(HERE / "panorama.py"), "--model", folder, "--device", device, "--dtype", dtype, "--threads", str(threads),
        "--json", "--output", str(output), *job,
    ])


def compare(a: Path, b: Path) -> dict:
    return run([sys.executable, str(HERE / "compare.py"), str(a), str(b)])


def spread(values: list[float], digits: int = 1) -> str:
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.processor()}, {len(names)} cores"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=2, help="pairs of runs")
    parser.add_argument("--model", action="append", help="`demo` or a bundle folder; may be given more than once")
    parser.add_argument("--dtype", action="append", help="of ours, may be given more than once")
    parser.add_argument("--before", type=Path, help="another build of `syncdiffusion`, beside its worker, to compare with")
    parser.add_argument("--fast", action="store_true", help="time the preset `fast`, too")
    parser.add_argument("--reference-dtype", default="f32", help="f32, or f16 or bf16 for autocast as the original has it on a GPU")
    parser.add_argument("--device", default="cpu", help="cpu or cuda, of both; for cuda run this with a Python whose torch has it")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("job", nargs="*", help="flags of the job, after `--`; by default the default job")
    options = parser.parse_args()
    job = options.job or DEFAULT_JOB
    dtypes = options.dtype or ["f32"]
    print(f"{processor()}; {options.runs} runs of each, in turn, on {options.device}; job: `{shlex.join(job)}`\n")
    print("| model | who | seconds | reference / ours | memory, GiB | bytes within 1 | PSNR, dB |")
    print("|---|---|---|---|---|---|---|")
    ratios_before = []
    for model in options.model or ["demo"]:
        programs = {dtype: (OURS, dtype, job) for dtype in dtypes}
        if options.before:
            programs |= {f"{dtype}, before": (options.before, dtype, job) for dtype in dtypes}
        fast = {f"{dtype}, preset fast": (OURS, dtype, [*job, "--preset", "fast"]) for dtype in dtypes if options.fast}
        programs |= fast
        runs: dict[str, list[dict]] = {who: [] for who in [*programs, "reference"]}
        with tempfile.TemporaryDirectory() as folder:
            pictures = {who: Path(folder, f"{who}.png") for who in runs}
            for _ in range(options.runs):
                for who, (program, dtype, flags) in programs.items():
                    runs[who].append(ours(program, model, options.device, dtype, flags, pictures[who]))
                runs["reference"].append(reference(model, options.device, options.reference_dtype, options.threads, job, pictures["reference"]))
            same = {who: compare(pictures[who], pictures["reference"]) for who in programs if who not in fast}
        theirs = [run["seconds"] for run in runs["reference"]]
        for dtype in dtypes if options.before else ():
            ratios = [old["seconds"] / new["seconds"] for old, new in zip(runs[f"{dtype}, before"], runs[dtype])]
            ratios_before.append(f"{Path(model).name}, {dtype}: before / now {spread(ratios, 2)}")
        for who, results in runs.items():
            seconds = [run["seconds"] for run in results]
            memory = max(run["peak_memory_bytes"] for run in results) / 2**30
            line = f"| {Path(model).name} | {who} | {spread(seconds)} | "
            if who == "reference":
                line += f"1 | {memory:.2f} | | |"
            elif who in fast:
                line += f"{spread([b / a for a, b in zip(seconds, theirs)], 2)} | {memory:.2f} | | |"
            else:
                ratios = [b / a for a, b in zip(seconds, theirs)]
                psnr = same[who]["psnr"]
                line += f"{spread(ratios, 2)} | {memory:.2f} | {100 * same[who]['share_within_1']:.3f} % | "
                line += "equal |" if psnr in (None, float("inf")) else f"{psnr:.1f} |"
            print(line, flush=True)
    print("", *ratios_before, sep="\n")


if __name__ == "__main__":
    main()
