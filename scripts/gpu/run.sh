#!/usr/bin/env bash
# Everything that only a GPU can tell, in nine minutes at most: run this in the unpacked archive of `make gpu-pack`, on Linux with
# Python 3.12 and torch 2.11 as pip installs it. No network is needed. Every stage has its own time limit and none stops the next; the
# most valuable come first. The result is OUT/table.md, which is printed, too.
#   OUT=folder      where measurements are written (default: results)
#   STAGES="a b"    only these stages
#   DEVICE=cpu      the same on a CPU with a tiny model, to try the way there
#   MODEL=folder    another model than that with random weights; with DEVICE=cpu its pictures are SIZE=192x128
#   PYTHON=python   another Python than python3
set -uo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
device=${DEVICE:-cuda} python=${PYTHON:-python3}
OUT=${OUT:-$PWD/results}
mkdir -p "$OUT"
OUT=$(cd "$OUT" && pwd)
export OUT PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 OMP_NUM_THREADS=1 FIXTURES="$here/fixtures"
json=$OUT/results.jsonl

if [ "$device" = cuda ]; then
    memory=/dev/shm
    # As the server starts its workers.
    export PYTORCH_CUDA_ALLOC_CONF=${PYTORCH_CUDA_ALLOC_CONF:-expandable_segments:True}
    size=full
else
    memory=$OUT
    size=tiny
fi
model=${MODEL:-$memory/syncdiffusion-gpu-model}
export PYTHONPATH="$here/reference${PYTHONPATH:+:$PYTHONPATH}:$here/site"
libraries=$("$python" -c 'import importlib.util; print(list(importlib.util.find_spec("torch").submodule_search_locations)[0])' 2>/dev/null)
libraries=${LIBTORCH:-$libraries}/lib
[ -e "$libraries/libtorch_cpu.so" ] || { echo "run.sh: \`$python\` has no torch; install torch 2.11, or set PYTHON or LIBTORCH" >&2; exit 1; }
export LD_LIBRARY_PATH="$libraries${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"

all="doctor model job eager check sweep compile micro kernels"
stages=${STAGES:-$all}

# Runs a function in a process of its own, which can be stopped.
stage() { # NAME SECONDS
    local name=$1 seconds=$2 start=$SECONDS code=0
    case " $stages " in *" $name "*) ;; *) return ;; esac
    # A CPU may be slow: there it only has to end.
    [ "$device" = cuda ] || seconds=$((seconds * 20))
    timeout -k 5 "$seconds" "${BASH:-bash}" "$here/run.sh" --stage "$name" >"$OUT/$name.log" 2>&1 || code=$?
    printf '{"record":"stage","name":"%s","code":%s,"seconds":%s,"limit":%s}\n' "$name" "$code" $((SECONDS - start)) "$seconds" >>"$json"
    printf '%-8s code %s after %s s of %s\n' "$name" "$code" $((SECONDS - start)) "$seconds" >&2
}

# One measurement; a failure is noted, and the next one follows.
gpu() { "$here/bin/gpu" "$1" --json "$json" "${@:2}" || echo "failed: gpu $*" >&2; }
job() { gpu job "$model" --device "$device" "${@}"; }
python_gpu() { "$python" "$here/$1" "${@:2}" --device "$device"; }

# The default job, and a shorter one for comparisons; on a CPU both are small.
if [ "$device" = cuda ]; then
    default=(--steps 50 --syncs 5) short=(--steps 6 --syncs 1)
else
    small=(--size "${SIZE:-192x128}" --stride 8 --widths 4x2 --steps 2 --syncs 1)
    default=("${small[@]}") short=("${small[@]}")
fi

doctor() {
    uname -srm
    nvidia-smi --query-gpu=name,driver_version,clocks.max.sm,power.limit,memory.total --format=csv,noheader 2>/dev/null |
        while IFS=, read -r name driver clock power total; do
            printf '{"record":"gpu","name":"%s","driver":"%s","clock":"%s","power":"%s","memory":"%s"}\n' "$name" "${driver# }" "${clock# }" "${power# }" "${total# }" >>"$json"
        done
    "$python" -c 'import sys, torch; print(sys.version.split()[0], torch.__version__, torch.version.cuda, torch.backends.cudnn.version() if torch.cuda.is_available() else "no GPU")'
    command -v cc || echo "no C compiler: torch.compile cannot start its kernels"
    "$here/bin/syncdiffusion-worker" doctor
}

model() {
    python_gpu model.py "$size" "$model" --tokenizer "$here/tokenizer"
}

# As the worker does it: batches of listed widths, each computed once before the first job.
job_stage() {
    job --name "default job" --rehearse --repeat 2 --rgb "$OUT/default.rgb" "${default[@]}"
    job --name "default job, not warmed up" --repeat 2 --against "$OUT/default.rgb" "${default[@]}"
    [ "$device" = cpu ] || job --name "default job, cuDNN's attention" --attention auto --repeat 2 --against "$OUT/default.rgb" "${default[@]}"
}

eager() { python_gpu reference.py "$model" eager --json "$json"; }

check_stage() {
    local cases=()
    [ "$device" = cuda ] || cases=(--cases 2)
    gpu check --device "$device" "${cases[@]}" --dtype f32 --strict
    for dtype in f16 bf16; do gpu check --device "$device" "${cases[@]}" --dtype "$dtype"; done
    [ "$device" = cpu ] || gpu check --device "$device" --dtype f32 --tf32 true
    # Large maps go in strips, in every dtype.
    for dtype in f32 bf16 f16; do
        job --name "short job" --dtype "$dtype" "${short[@]}" --repeat 1 --rgb "$OUT/$dtype.rgb" --against "$OUT/f32.rgb"
    done
}

sweep() {
    # The first is the base of the others; the second shows how far two equal runs differ.
    for name in base again; do job --name "sweep: $name" "${short[@]}" --rgb "$OUT/base.rgb"; done
    local against=(--against "$OUT/base.rgb")
    job --name "sweep: channels-last" "${short[@]}" "${against[@]}" --channels-last true
    for way in nearest four; do job --name "sweep: upsampling $way" "${short[@]}" "${against[@]}" --upsample "$way"; done
    for dtype in f32 bf16; do job --name "sweep: decoder in $dtype" "${short[@]}" "${against[@]}" --pictures "$dtype"; done
    # What follows is a GPU's alone.
    [ "$device" = cuda ] || return 0
    job --name "sweep: decoder in f32 as TF32" "${short[@]}" "${against[@]}" --pictures f32 --tf32 true
    job --name "sweep: channels-last, upsampling nearest" "${short[@]}" "${against[@]}" --channels-last true --upsample nearest
    job --name "sweep: benchmark" "${short[@]}" "${against[@]}" --benchmark true
    for widths in 1x1 4x4 8x6 13x12; do job --name "sweep: widths $widths" "${short[@]}" "${against[@]}" --widths "$widths"; done
    job --name "sweep: checkpointing" "${short[@]}" "${against[@]}" --checkpointing
    job --name "512x512" --size 512x512 --repeat 3
}

compile() { python_gpu reference.py "$model" compile --json "$json"; }

micro() {
    if [ "$device" = cuda ]; then gpu micro; else gpu micro --device cpu --tiny; fi
}

kernels() {
    job --name "profiled job" "${short[@]}" --profile "$OUT/profile.tsv"
    python_gpu reference.py "$model" kernels --json "$json"
}

if [ "${1:-}" = --stage ]; then
    case $2 in
        job | check) "$2_stage" ;;
        *) "$2" ;;
    esac
    exit
fi

: >"$json"
for plan in doctor:15 model:45 job:75 eager:60 check:60 sweep:100 compile:95 micro:50 kernels:40; do
    stage "${plan%:*}" "${plan#*:}"
done
"$python" "$here/table.py" "$OUT" | tee "$OUT/table.md"
[ -n "${MODEL:-}" ] || rm -rf "$model"
