#!/usr/bin/env bash
# usage: babysit.sh [OPTIONS] VERB ...   run `jaxmlm VERB ...` until it is done, through preemptions
#
#   babysit.sh pretrain configs/quickstart_run.py --workdir /gcs/runs/mine --masking.rate 0.4
#
# Makes the TPU if it is not there (create.sh, setup.sh, data.sh mount), starts the command, and looks at it every --poll
# seconds. When the TPU is preempted it is deleted and made anew, and the command resumes from its last checkpoint; exit
# code 75 starts it again as well. A command that fails three times by itself, or is wrong, ends the babysitting.
# --delete yes deletes the TPU when the command is done. Runs on this machine: start it in tmux.
source "$(dirname "$0")/common.sh"
source "$HERE/job.sh"
options "$@"
((${#WORDS[@]})) || bad "what to run? write: babysit.sh pretrain CONFIG --workdir FOLDER"
check_job
if [ "$CAPACITY" = spot ] && [[ $workdir != "$MOUNT"/* ]]; then
  bad "a preemption would delete $workdir, which is on the workers' own disks: give --workdir $MOUNT/runs/NAME"
fi
[ -n "$BUCKET" ] || [[ $workdir != "$MOUNT"/* ]] || bad "$workdir is in the bucket, and no bucket is named: give --bucket"
check_login
MOST_FAILURES=3

# renew STATE: bring up a TPU with everything on it; 75 if it is preempted meanwhile.
renew() {
  [ "$1" = ABSENT ] || "$HERE/delete.sh" "${GIVEN[@]}" || return
  "$HERE/create.sh" "${GIVEN[@]}" && prepare
}

# prepare: the package and the bucket on every worker.
prepare() { "$HERE/setup.sh" "${GIVEN[@]}" && { [ -z "$BUCKET" ] || "$HERE/data.sh" "${GIVEN[@]}" mount; }; }

# await_end: until the job has ended; prints done, again (75, or the workers lost it), wrong or failed.
await_end() {
  local lines
  while sleep "$POLL"; do
    lines=$(job_status) || { local code=$?; say "cannot see the job: $(reason "$code" "$CALL_LIMIT")"; return "$code"; }
    if ! grep -q ' exit [^0]\| lost' <<<"$lines"; then
      if grep -q ' running$' <<<"$lines"; then continue; fi
      echo "done"
      return
    fi
    stop_job >/dev/null || return # those that still run wait for those that are gone
    case $lines in
      *' exit 2'*) echo wrong ;;
      *' exit 75'* | *' lost'*) echo again ;;
      *) echo failed ;;
    esac
    return
  done
}

if ((DRY_RUN)); then
  renew ABSENT
  check_workdir
  start_job
  job_status
  exit
fi

failures=0
for ((launch = 1; launch <= RELAUNCHES; launch++)); do
  state=$(state_of) || fail "cannot tell the state of $NAME: $(reason $? "$CALL_LIMIT")"
  BILLED=1
  code=0
  case $state in
    ABSENT | PREEMPTED | FAILED) renew "$state" || code=$? ;;
    WAITING) { "$HERE/create.sh" "${GIVEN[@]}" wait && prepare; } || code=$? ;;
    READY) # what was installed may be of another commit, but nothing is changed under a job that runs
      if ((launch == 1)) && ! job_status | grep -q ' running$'; then prepare || code=$?; fi
      ;;
  esac
  if ((code == PREEMPTED)); then say "preempted while it was made ready; once more"; continue; fi
  if ((code)); then BILLED=0; exit "$code"; fi # the script that failed has said why, and what is billed
  end=$(check_workdir && start_job >&2 && say "launch $launch of at most $RELAUNCHES" && await_end) || code=$?
  if [ "$code:$end" = 0:done ]; then
    if [ "$DELETE" = yes ]; then "$HERE/delete.sh" "${GIVEN[@]}"; BILLED=0; fi
    say "done: jaxmlm ${WORDS[*]}"
    [ "$DELETE" = yes ] || say "STILL BILLED: $NAME ($SLICES x $TYPE in $ZONE); fetch.sh $workdir, then delete it: $(delete_command)"
    exit
  fi
  state=$(state_of) || state=UNKNOWN
  case $state:$code:$end in
    PREEMPTED:*) say "preempted; a new $NAME, and on from the last checkpoint" ;;
    *:0:again) say "the job ended before its time (75, or its worker restarted); it goes on" ;;
    *:0:wrong | *:2:*) "$HERE/logs.sh" "${GIVEN[@]}" --lines 3 || true; exit "$WRONG_INPUT" ;;
    *)
      failures=$((failures + 1))
      say "failure $failures of at most $MOST_FAILURES"
      if ((failures == MOST_FAILURES)); then "$HERE/logs.sh" "${GIVEN[@]}" || true; exit "$FAILED"; fi
      sleep "$PAUSE"
      ;;
  esac
done
say "launched $RELAUNCHES times without an end"
exit "$PREEMPTED"
