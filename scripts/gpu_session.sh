#!/usr/bin/env bash
# gpu_session.sh SECONDS: everything that needs a GPU, in order of worth, within so many seconds.
#
# Each part has a share of the time and is independent of whether those before it passed. What comes
# of them goes to $OUT (default: gpu-results): log.txt, summary.txt with each part's outcome, the
# benchmarks' JSON, the server's log. $PARTS (default: all) names parts to do, such as "exact served",
# where one call may not take long enough for all. $PYTHON (default: python3) needs a CUDA build of
# PyTorch and what `pip install -e '.[engine,test]'` installs besides. --tiny after SECONDS tries the
# script on a CPU: tests marked gpu are then collected only.
set -uo pipefail

seconds=${1:?usage: gpu_session.sh SECONDS [--tiny]}
tiny=${2:-}
python=${PYTHON:-python3}
out=${OUT:-gpu-results}
cd "$(dirname "$0")/.." || exit 1
mkdir -p "$out"
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
started=$SECONDS
failed=0

left() { echo $((seconds - (SECONDS - started))); }

# part NAME PERCENT COMMAND…: at most so much of the whole time, and of what is left.
part() {
    local name=$1 most=$((seconds * $2 / 100)) begun=$SECONDS status
    shift 2
    case " ${PARTS:-$name} " in *" $name "*) ;; *) return ;; esac
    local rest
    rest=$(left)
    if [ "$rest" -lt 10 ]; then
        echo "$name: not begun, the time was used up" | tee -a "$out/summary.txt"
        failed=1
        return
    fi
    [ "$most" -gt "$rest" ] && most=$rest
    echo "==> $name" >>"$out/log.txt"
    timeout --kill-after 10 "$most" "$@" >>"$out/log.txt" 2>&1
    status=$?
    [ $status -ne 0 ] && failed=1
    echo "$name: status $status after $((SECONDS - begun)) s" | tee -a "$out/summary.txt"
    tail -n 3 "$out/log.txt"
}

: >"$out/summary.txt"
: >"$out/log.txt"
device=auto
collect=()
if [ "$tiny" = --tiny ]; then
    device=cpu
    collect=(--collect-only)
fi
tests=("$python" -m pytest -q -p no:cacheprovider -m 'gpu or triton' "${collect[@]}")
bench=("$python" -m benchmarks.gpu --device "$device" ${tiny:+--tiny})

part machine 5 "$python" -c 'import torch, transformers, msgspec; print(torch.__version__, transformers.__version__, torch.version.cuda, [torch.cuda.get_device_name(n) for n in range(torch.cuda.device_count())])'
part kernels 20 "${tests[@]}" tests/unit/engine/kernels/cuda
part steps 30 "${bench[@]}" --only steps --json "$out/steps.json"
part engine 25 "${tests[@]}" tests/gpu
part exact 25 "${bench[@]}" --only exact --json "$out/exact.json"
part served 40 "${bench[@]}" --only served --json "$out/served.json"
[ -f benchmarks/peers/.envs/logs/wetink-gpu.log ] && cp benchmarks/peers/.envs/logs/wetink-gpu.log "$out/server.log"
cat "$out/summary.txt"
exit $failed
