#!/usr/bin/env bash
# How fast one GPU trains, within a time limit: benchmarks/gpu.sh OUT [--small] [-- OPTIONS OF THE STUDY]
#
# The training step of base and large beside compiled PyTorch at 128, 512 and 1,024 tokens with profiles, then the rates of
# the small-data study at its GPU scale. Needs the extras `cuda` and `parity`; the study needs its texts or its store:
#
#     benchmarks/gpu.sh out -- --store store --blimp blimp --glue glue_data
#
# A result is a file of its own in OUT as soon as it is known, and a second call makes what is missing. After MINUTES
# (25) nothing begins, and what runs is stopped: the study saves, and a second call resumes it. LENGTHS are the lengths
# of rows. `--small` runs all of it with tiny encoders on any device.
set -u
usage() { sed -n '2s/^# //p' "$0" >&2; exit 2; }
[ $# -ge 1 ] && [ "${1#-}" = "$1" ] || usage
out=$1
shift
small=
if [ "${1:-}" = --small ]; then small=yes; shift; fi
[ "${1:---}" = -- ] || usage
study=("${@:2}")
deadline=$((SECONDS + ${MINUTES:-25} * 60))
configs=$(dirname "$0")/../configs
mkdir -p "$out"
failed=0

# part NAME COMMAND…: run a command whose output becomes OUT/NAME once it has ended well.
part() {
  local name=$1 left=$((deadline - SECONDS)) began=$SECONDS code
  shift
  [ ! -e "$out/$name" ] || return 0
  if ((left < 20)); then
    echo "gpu.sh: $name: no time is left"
    return 0
  fi
  timeout --kill-after=60 "$left" "$@" >"$out/$name.part" 2>"$out/$name.log"
  code=$?
  if ((code == 0)); then
    mv "$out/$name.part" "$out/$name"
    echo "gpu.sh: $name: $((SECONDS - began)) s"
  else
    failed=1
    echo "gpu.sh: $name: ended with $code: $(tail -n 1 "$out/$name.log")"
  fi
}

# bench NAME CONFIG LENGTH ROWS OPTIONS…: the training step of one size, on random tokens, beside PyTorch.
bench() {
  local name=$1 config=$2 length=$3 rows=$4
  shift 4
  if [ -n "$small" ]; then
    length=$((length / 8))
    rows=8
    set -- "$@" --model.layers 2 --model.width 64 --model.heads 2 --model.dtype float32 --data.vocab 700 --rounds 2
  fi
  part "$name.json" jaxmlm bench "$configs/$config.py" --tokens random --model.remat none --data.length "$length" \
    --model.max-positions "$length" --loop.batch "$rows" --peer transformers --json "$@"
}

part doctor.txt jaxmlm doctor
for length in ${LENGTHS:-128 512 1024}; do # 65,536 and 32,768 tokens a step
  bench "base_$length" base "$length" $((65536 / length)) --data.vocab 30522 --profile "$out/profile_$length"
  bench "large_$length" large "$length" $((32768 / length))
  bench "base_${length}_no_attention_dropout" base "$length" $((65536 / length)) --data.vocab 30522 \
    --model.attention-dropout 0
done
if [ ${#study[@]} -gt 0 ]; then
  scaled=()
  if [ -n "$small" ]; then
    scaled=(--run.model.layers 2 --run.model.width 64 --run.model.heads 2 --run.model.dtype float32
      --run.loop.steps 20 --run.loop.batch 8 --run.loop.eval-every 10)
  fi
  part study.json jaxmlm study "$configs/small_data.py" --scale gpu --question rates --workdir "$out/study" \
    --json "${scaled[@]}" "${study[@]}"
fi
exit $failed
