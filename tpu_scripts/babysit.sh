#!/usr/bin/env bash
# usage: babysit.sh [OPTIONS] VERB ...   run `jaxmlm VERB ...` until it is done, through preemptions
#
#   babysit.sh pretrain configs/quickstart_run.py --workdir /gcs/runs/mine --masking.rate 0.4
#
# Makes the TPU if it is not there (create.sh, setup.sh, data.sh mount), starts the command, and looks at it every --poll
# seconds. When the TPU is preempted it is deleted and made anew, and the command resumes from its last checkpoint; exit
# code 75 starts it again as well. While the cloud does not answer, it keeps looking. A command that fails by itself three
# times without --steady seconds of running in between, or is wrong, ends the babysitting.
# --delete yes deletes the TPU when the command is done. Runs on this machine: start it in tmux.
source "$(dirname "$0")/common.sh"
source "$HERE/job.sh"
options "$@"
((${#WORDS[@]})) || bad "what to run? write: babysit.sh pretrain CONFIG --workdir DIRECTORY"
check_job
if [ "$CAPACITY" = spot ] && [[ $workdir != "$MOUNT"/* ]]; then
  bad "a preemption would delete $workdir, which is on the workers' own disks: give --workdir $MOUNT/runs/NAME"
fi
[ -n "$BUCKET" ] || [[ $workdir != "$MOUNT"/* ]] || bad "$workdir is in the bucket, and no bucket is named: give --bucket"
check_login
MOST_FAILURES=3
failures=0 prepared=0

# make_ready: a TPU with everything on it, from whatever `look` has found; 75 if it is preempted meanwhile.
make_ready() {
  [ "$state" = READY ] || prepared=0
  case $state in
    ABSENT) "$HERE/create.sh" "${GIVEN[@]}" && prepare ;;
    WAITING) "$HERE/create.sh" "${GIVEN[@]}" wait && prepare ;;
    READY) # what was installed may be of another commit, but nothing is changed under a job that runs, or between two starts
      if grep -q ' running$' <<<"$lines"; then return 0; fi
      if ((prepared)); then mount_bucket; else prepare; fi # a worker that has restarted has lost the mount
      ;;
    *) "$HERE/delete.sh" "${GIVEN[@]}" && "$HERE/create.sh" "${GIVEN[@]}" && prepare ;;
  esac
}

# prepare: the package and the bucket on every worker.
prepare() { "$HERE/setup.sh" "${GIVEN[@]}" && mount_bucket; }
mount_bucket() { [ -z "$BUCKET" ] || "$HERE/data.sh" "${GIVEN[@]}" mount; }

# look: sets `state` of the TPU and, where that is READY, the `lines` of job_status. Waits for an answer, however long: a
# job continues without this machine, and what is billed would be so without babysitting too.
look() {
  local code
  while true; do
    code=0 lines=''
    state=$(state_of) || code=$?
    [ "$code$state" != 0READY ] || lines=$(job_status) || code=$?
    ((code)) || return 0
    say "cannot see $NAME: $(reason "$code" "$CALL_LIMIT")"
    # The next look will tell of a preemption ("terminal state").
    if permanent "$code" && ! grep -q 'terminal state' "$ERRORS"; then failed; else sleep "$POLL"; fi
  done
}

# await_end: until the job has ended; sets `end`: done, again (75, or a worker lost it), wrong, failed, or the TPU's state.
await_end() {
  local since=$SECONDS
  while sleep "$POLL"; do
    look
    if [ "$state" != READY ]; then end=$state; return 0; fi
    if ! grep -q ' exit [^0]\| lost' <<<"$lines"; then
      if ! grep -q ' running$' <<<"$lines"; then end="done"; return 0; fi
      ((SECONDS - since < STEADY)) || failures=0
      continue
    fi
    stop_job >/dev/null || continue # those that still run wait for those that are gone
    case $lines in
      *' exit 2'*) end=wrong ;;
      *' exit 75'* | *' lost'*) end=again ;;
      *) end=failed ;;
    esac
    return 0
  done
}

# failed: count a failure; the last one ends the babysitting.
failed() {
  failures=$((failures + 1))
  say "failure $failures of at most $MOST_FAILURES"
  if ((failures == MOST_FAILURES)); then
    [ "$state" != READY ] || "$HERE/logs.sh" "${GIVEN[@]}" || true
    exit "$FAILED"
  fi
  sleep "$PAUSE"
}

if ((DRY_RUN)); then
  state=ABSENT
  make_ready
  check_workdir
  start_job
  job_status
  exit
fi

BILLED=1
for ((launch = 1; launch <= RELAUNCHES; launch++)); do
  look
  code=0 end=''
  make_ready || code=$?
  if ((code == WRONG_INPUT)); then BILLED=0; exit "$code"; fi # the script that failed has said why, and what is billed
  if ((code == 0)); then
    prepared=1
    (check_workdir && start_job >&2) || code=$?
  fi
  if ((code == 0)); then
    say "launch $launch of at most $RELAUNCHES"
    await_end
  fi
  case $code:$end in
    0:done)
      if [ "$DELETE" = yes ]; then "$HERE/delete.sh" "${GIVEN[@]}"; BILLED=0; fi
      say "done: jaxmlm ${WORDS[*]}"
      [ "$DELETE" = yes ] || say "STILL BILLED: $NAME ($SLICES x $TYPE in $ZONE); fetch.sh $workdir DEST, then delete it: $(delete_command)"
      exit
      ;;
    0:PREEMPTED | "$PREEMPTED":) say "preempted; a new $NAME, and on from the last checkpoint" ;;
    0:[A-Z]*) say "$NAME is $end; made ready again, and on from the last checkpoint" ;;
    0:again) say "the job ended before its time (75, or its worker restarted); it is resumed" ;;
    0:wrong | "$WRONG_INPUT":) "$HERE/logs.sh" "${GIVEN[@]}" --lines 3 || true; exit "$WRONG_INPUT" ;;
    *) failed ;;
  esac
done
say "launched $RELAUNCHES times without an end"
exit "$PREEMPTED"
