#!/usr/bin/env bash
# usage: babysit.sh [OPTIONS] VERB ...   run `jaxmlm VERB ...` until it is done, through preemptions
#
#   babysit.sh pretrain configs/quickstart_run.py --workdir /gcs/runs/mine --masking.rate 0.4
#
# Makes the TPU if it is not there (create.sh, setup.sh, data.sh mount), starts the command, and looks at it every --poll
# seconds. When the TPU is preempted it is deleted and made anew, and the command resumes from its last checkpoint; exit
# code 75 starts it again as well. While the cloud does not answer, it keeps looking. A command that fails by itself three
# times without --steady seconds of running in between, or is wrong, ends the babysitting.
# The TPU is deleted when the command is done, has failed, or has had --max-hours of TPUs in all; only where the command is
# wrong is it left, for the next try. Runs on this machine: start it in tmux. When this machine sleeps, the run continues,
# and at its ceiling the TPU deletes itself.
source "$(dirname "$0")/common.sh"
source "$HERE/job.sh"
options "$BABYSIT_USES" "$@"
((${#WORDS[@]})) || bad "what to run? write: babysit.sh pretrain CONFIG --workdir DIRECTORY"
check_job
if [ "$CAPACITY" = spot ] && [[ $workdir != "$MOUNT"/* ]]; then
  bad "a preemption would delete $workdir, which is on the workers' own disks: give --workdir $MOUNT/runs/NAME"
fi
[ -n "$BUCKET" ] || [[ $workdir != "$MOUNT"/* ]] || bad "$workdir is in the bucket, and no bucket is named: give --bucket"
if [ "$DELETE" = yes ] && [[ $workdir != "$MOUNT"/* ]]; then
  bad "$workdir is on the workers' own disks, which go with the TPU: give --workdir $MOUNT/runs/NAME, or --delete no"
fi
MOST_FAILURES=3
failures=0 prepared=0
there=0            # 1 while a TPU, or a request for one, should be there: if it is not, somebody has deleted it
used=0 ready_at=-1 # seconds for which there was a TPU before this one; when this one was there, or -1

# left_seconds: what is left of the ceiling.
left_seconds() { echo $((MAX_SECONDS - used - (ready_at < 0 ? 0 : SECONDS - ready_at))); }

# account: count how long there is a TPU, by the `state` of the last look.
account() {
  if [ "$state" = READY ]; then
    ((ready_at >= 0)) || ready_at=$SECONDS
  elif ((ready_at >= 0)); then
    used=$((used + SECONDS - ready_at)) ready_at=-1
  fi
}

# check_ceiling: end the babysitting in good order before the workers end themselves.
check_ceiling() {
  if ((MAX_SECONDS == 0 || $(left_seconds) > CLOSE)); then return 0; fi
  [ "$state" != READY ] || stop_job >/dev/null || true # it saves
  say "the job has had its TPU $(ceiling) (--max-hours); the same command resumes it"
  over "$FAILED"
}

# over CODE: nobody looks at the TPU any more.
over() {
  if [ "$DELETE" = yes ]; then
    BILLED=0 # delete.sh says what is billed if it fails
    "$HERE/delete.sh" "${GIVEN[@]}" || exit "$FAILED"
  fi
  exit "$1"
}

# create WORD: create.sh with what is left of the ceiling.
create() {
  local left=()
  ((MAX_SECONDS == 0)) || left=(--max-seconds "$(left_seconds)")
  "$HERE/create.sh" "${GIVEN[@]}" "${left[@]}" "$1"
}
make() { create ask && there=1 && make_wait; }
make_wait() { create wait && ready_at=$SECONDS && prepare; }

# make_ready: a TPU with everything on it, from whatever `look` has found; 75 if it is preempted meanwhile.
make_ready() {
  [ "$state" = READY ] || prepared=0
  case $state in
    ABSENT) make ;;
    WAITING) make_wait ;;
    READY) # what was installed may be of another commit, but nothing is changed under a job that runs, or between two starts
      if grep -q ' running$' <<<"$lines"; then return 0; fi
      if ((prepared)); then mount_bucket; else prepare; fi # a worker that has restarted has lost the mount
      ;;
    *)
      there=0 # who deletes it are we
      "$HERE/delete.sh" "${GIVEN[@]}" && make
      ;;
  esac
}

# prepare: the package and the bucket on every worker.
prepare() { "$HERE/setup.sh" "${GIVEN[@]}" && mount_bucket; }
mount_bucket() { [ -z "$BUCKET" ] || "$HERE/data.sh" "${GIVEN[@]}" mount; }

# look: sets `state` of the TPU and, where that is READY, the `lines` of job_status. Waits for an answer, however long: a
# job continues without this machine, and what is billed would be so without babysitting too. A preempted TPU is still
# listed; one that is not, or is being deleted, was deleted by its ceiling or by somebody, and is not made anew.
look() {
  local code
  while true; do
    code=0 lines=''
    state=$(state_of) || code=$?
    [ "$code$state" != 0READY ] || lines=$(job_status) || code=$?
    if ((code == 0)); then
      account
      case $there,$state in
        1,ABSENT | 1,DELETING)
          say "$NAME was deleted, by its ceiling or by somebody, and is not made anew; the same command resumes the run on a new one"
          BILLED=0
          exit "$FAILED"
          ;;
        *,ABSENT | *,DELETING) ;;
        *) there=1 ;;
      esac
      return 0
    fi
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
      check_ceiling # some may be done, and the others hang
      ((SECONDS - since < STEADY)) || failures=0
      continue
    fi
    stop_job >/dev/null || { check_ceiling; continue; } # those that still run wait for those that are gone
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
    over "$FAILED"
  fi
  sleep "$PAUSE"
}

# plan: what happens, in order.
plan() {
  local from=${SOURCE:-this checkout} mount='no bucket, so nothing' last="the TPU is left to its ceiling (--delete no)"
  [ -z "$BUCKET" ] || mount="gs://$BUCKET at $MOUNT"
  [ "$DELETE" = no ] || last=delete.sh
  cat <<END
# 1. create.sh: ask for $NAME ($SLICES x $TYPE in $ZONE, $CAPACITY), unless it is there, and wait for capacity up to $((WAIT_LIMIT / 3600)) h.
#    It is billed from when it is ready, $(ceiling).
# 2. setup.sh: check on every worker that it ends by itself; install ${COMMIT:-the commit} of $from.
# 3. data.sh mount: $mount
# 4. Start on every worker: jaxmlm ${WORDS[*]}
# 5. Look every $POLL s. Preempted: delete.sh, and again from 1 with what is left of the ceiling. Exit code 75: again from 4.
# 6. Done, failed $MOST_FAILURES times, or at the ceiling: $last.
END
}

if ((DRY_RUN)); then
  plan
  check_login
  state=ABSENT
  make_ready
  check_workdir
  start_job
  job_status
  exit
fi

check_login
BILLED=1
for ((launch = 1; launch <= RELAUNCHES; launch++)); do
  look
  check_ceiling
  code=0 end=''
  make_ready || code=$?
  if ((code == WRONG_INPUT)); then # the script that failed has said why, and what is billed
    look # without its TPU every script finds the input wrong: that it was deleted is then why
    BILLED=0
    exit "$code"
  fi
  if ((code == 0)); then
    prepared=1
    (check_workdir && start_job >&2) || code=$?
    ((code != WRONG_INPUT)) || look # as above
  fi
  if ((code == 0)); then
    say "launch $launch of at most $RELAUNCHES"
    await_end
  fi
  case $code:$end in
    0:done)
      say "done: jaxmlm ${WORDS[*]}; fetch it: fetch.sh $workdir DEST"
      [ "$DELETE" = yes ] || say "STILL BILLED: $NAME ($SLICES x $TYPE in $ZONE); delete it: $(delete_command)"
      over 0
      ;;
    0:PREEMPTED | "$PREEMPTED":) say "preempted; a new $NAME, and on from the last checkpoint" ;;
    0:[A-Z]*) say "$NAME is $end; made ready again, and on from the last checkpoint" ;;
    0:again) say "the job ended before its time (75, or its worker restarted); it is resumed" ;;
    0:wrong | "$WRONG_INPUT":) "$HERE/logs.sh" "${GIVEN[@]}" --lines 3 || true; exit "$WRONG_INPUT" ;;
    *) failed ;;
  esac
done
say "launched $RELAUNCHES times without an end"
over "$PREEMPTED"
