#!/usr/bin/env bash
# usage: study.sh [OPTIONS] K CONFIG --workdir DIRECTORY ...   a study over K slices of its own each, which share its cells
#
#   study.sh 3 configs/paper/rates.py --scale pod --text '/gcs/text/*.gz' --glue /gcs/glue_data --blimp /gcs/blimp \
#     --workdir /gcs/studies/rates
#
# CONFIG and what it reads must be there on every slice: text and tasks in the bucket.
# The slices are called NAME-1 to NAME-K; each is babysat by itself and does every K-th cell (`jaxmlm study --cells I/K`).
# The first one makes the token store before, and the report after. What each says is in NAME-I.log of this directory.
# Every slice is deleted when its work is done or has failed, and has a ceiling of its own (--max-hours). Ctrl-C ends the
# babysitting of all; what runs continues, until its ceiling at the latest.
source "$(dirname "$0")/common.sh"
source "$HERE/job.sh"
options "$BABYSIT_USES" "$@"
k=${WORDS[0]:-}
[[ $k =~ ^[1-9][0-9]*$ ]] || bad "how many slices? write: study.sh K CONFIG --workdir DIRECTORY; got '$k'"
TPUS=$k
((SLICES == 1)) || bad "study.sh gives each slice cells of its own: leave out --slices"
study=("${WORDS[@]:1}")
WORDS=(study "${study[@]}")
check_job
[[ $workdir == "$MOUNT"/* ]] || bad "the slices share $workdir: give --workdir $MOUNT/studies/NAME"

# babysit I DELETE WORD...: start jaxmlm WORD... on slice I, with what is said in a log beside us; `ended I` waits for it.
babysit() {
  local slice=$NAME-$1 command=("$HERE/babysit.sh" "${GIVEN[@]}" --name "$NAME-$1" --delete "$2" "${@:3}")
  if ((DRY_RUN)); then "${command[@]}"; return; fi
  say "$slice: jaxmlm ${*:3}"
  set -m # a process group of its own, to be ended with all that it has started
  "${command[@]}" >>"$slice.log" 2>&1 </dev/null &
  set +m
  pids[$1]=$!
}
ended() { ((DRY_RUN)) || wait "${pids[$1]}"; }

# give_up CODE: end the babysitters too: they would continue without us, and make a new TPU after a preemption.
give_up() {
  local group
  trap - HUP INT TERM
  for group in $(jobs -p); do kill -- "-$group" || true; done 2>/dev/null
  wait
  left
  exit "$1"
}

# left: what of the slices is there still.
left() {
  local i state
  for ((i = 1; i <= k; i++)); do
    state=$(NAME=$NAME-$i TRIES=1 state_of 2>/dev/null) || state=UNKNOWN
    [ "$state" = ABSENT ] || say "STILL BILLED: $NAME-$i ($state); delete it: $(NAME=$NAME-$i delete_command)"
  done
}

check_login
code=0 pids=()
trap 'give_up 129' HUP
trap 'give_up 130' INT
trap 'give_up 143' TERM
babysit 1 no prepare "${study[@]}"
ended 1 || code=$?
if ((code == 0)); then
  for ((i = 1; i <= k; i++)); do
    delete=$DELETE
    ((i > 1)) || delete=no # the first one draws the report
    babysit "$i" "$delete" study "${study[@]}" --cells "$((i - 1))/$k"
  done
  for ((i = 1; i <= k; i++)); do
    ended "$i" || { code=$?; say "$NAME-$i ended with $code, see $NAME-$i.log: $(tail -n 1 "$NAME-$i.log" 2>/dev/null)"; }
  done
fi
if ((code == 0)); then
  babysit 1 "$DELETE" study "${study[@]}"
  ended 1 || code=$?
fi
((DRY_RUN)) && exit
if ((code)) && [ "$DELETE" = yes ]; then "$HERE/delete.sh" "${GIVEN[@]}" --name "$NAME-1" || true; fi # it has waited for the report
left
((code == 0)) || fail "the study is not done (see $NAME-*.log): the same command resumes it"
say "done: bring it with fetch.sh $workdir ${workdir#"$MOUNT"/}"
