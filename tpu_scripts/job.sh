# shellcheck shell=bash
# A job on the workers of a TPU, for run.sh and babysit.sh: check, start, stop, ask. WORDS is the jaxmlm command.
# On a worker: ~/jaxmlm-job/{pid, log, exit}; exit holds the exit code once the command has ended.

# check_job: the command has a directory to write to, and refuses to fall back to the CPU (--require).
check_job() {
  local i
  workdir=''
  for ((i = 1; i < ${#WORDS[@]}; i++)); do
    case ${WORDS[i]} in
      --workdir) workdir=${WORDS[i + 1]:-} ;;
      --workdir=*) workdir=${WORDS[i]#*=} ;;
    esac
  done
  case ${WORDS[0]},$workdir in finetune, | evaluate,) workdir=${WORDS[1]:-} ;; esac # they stay with the run that they take
  [ -n "$workdir" ] || bad "no --workdir in '${WORDS[*]}': give a directory in the bucket, as --workdir $MOUNT/runs/NAME"
  [[ $workdir == /* ]] || bad "$workdir is relative to a worker's disk: give a directory in the bucket, as --workdir $MOUNT/$workdir"
  case ${WORDS[0]},$REQUIRE in
    *,) ;;
    pretrain,* | study,* | finetune,* | evaluate,*) WORDS+=(--require "$REQUIRE") ;;
  esac
}

# remote_mark DIRECTORY NAME MOUNT, on the first worker; remote_see DIRECTORY NAME, on every worker: is DIRECTORY the same for all,
# and in the bucket if it is below MOUNT? Before the mount, and after a restart, that is a directory like any other.
remote_mark() {
  case $1 in "$3"/*) mountpoint -q "$3" || { echo "ERROR: $HOSTNAME has nothing mounted at $3" >&2; return 2; } ;; esac
  mkdir -p "$1" && touch "$1/$2"
}
remote_see() { [ -e "$1/$2" ] || { echo "ERROR: $HOSTNAME does not see $1" >&2; return 2; }; }
remote_unmark() { rm -f "$1/$2"; }

# check_workdir: every worker sees the directory that the first one makes.
check_workdir() {
  local mark=".seen-$$-$RANDOM" code=0
  on_workers "$CALL_LIMIT" 0 remote_mark "$workdir" "$mark" "$MOUNT" || code=$?
  ((code)) || on_workers "$CALL_LIMIT" all remote_see "$workdir" "$mark" || code=$?
  ((code == 0 || code == WRONG_INPUT)) || gone_wrong "looking at $workdir" "$code" "$CALL_LIMIT"
  on_workers "$CALL_LIMIT" 0 remote_unmark "$workdir" "$mark" || true
  ((code == 0)) || bad "workdir $workdir is on a worker's own disk: mount the bucket (data.sh mount) and give --workdir $MOUNT/runs/NAME"
}

# remote_start WORKDIR WORD..., on a worker: start jaxmlm WORD... in a session of its own; twice is once.
remote_start() {
  local job=~/jaxmlm-job workdir=$1
  shift
  mkdir -p "$job"
  if [ -f "$job/pid" ] && [ ! -f "$job/exit" ] && kill -0 "$(cat "$job/pid")" 2>/dev/null; then
    [ "$(cat "$job/command")" = "$*" ] || { echo "ERROR: $HOSTNAME runs another job: jaxmlm $(cat "$job/command")" >&2; return 2; }
    echo "$HOSTNAME: runs already"
    return
  fi
  rm -f "$job/exit"
  echo "$*" >"$job/command"
  # shellcheck disable=SC2016  # the shell that is started expands them
  setsid nohup bash -c '
    job=$1 workdir=$2
    shift 2
    keep() { # a copy of the log where it outlives this worker
      mkdir -p "$workdir/logs" && cp "$job/log" "$workdir/logs/$HOSTNAME.part" && mv "$workdir/logs/$HOSTNAME.part" "$workdir/logs/$HOSTNAME.log"
    }
    while sleep 60; do keep; done &
    trap : TERM # SIGTERM is for the command; this shell stays to write down how it ended
    cd ~/jaxmlm && . ~/jaxmlm.env
    echo "== $(date -u +%FT%TZ) jaxmlm $*"
    .venv/bin/jaxmlm "$@"
    code=$?
    echo "== $(date -u +%FT%TZ) exit $code"
    kill $! 2>/dev/null
    keep
    echo $code >"$job/exit.part"
    mv "$job/exit.part" "$job/exit"
  ' job "$job" "$workdir" "$@" >>"$job/log" 2>&1 </dev/null &
  echo $! >"$job/pid"
  echo "$HOSTNAME: started"
}

# remote_stop SECONDS, on a worker: SIGTERM, on which jaxmlm finishes its step and saves; SIGKILL after so long.
remote_stop() {
  local job=~/jaxmlm-job pid waited
  pid=$(cat "$job/pid" 2>/dev/null || true)
  if [ -z "$pid" ] || [ -f "$job/exit" ] || ! kill -TERM -- "-$pid" 2>/dev/null; then echo "$HOSTNAME: nothing runs"; return; fi
  for ((waited = 0; waited < $1 * 5; waited++)); do
    if [ -f "$job/exit" ]; then echo "$HOSTNAME: stopped, exit $(cat "$job/exit")"; return; fi
    sleep 0.2
  done
  kill -KILL -- "-$pid" 2>/dev/null || true
  echo 137 >"$job/exit"
  echo "$HOSTNAME: killed, it did not stop within $1 s"
}

# remote_status, on a worker: HOST running, HOST exit CODE, or HOST lost (never started, or gone with a restart).
remote_status() {
  local job=~/jaxmlm-job
  if [ -f "$job/exit" ]; then
    echo "$HOSTNAME exit $(cat "$job/exit")"
  elif [ -f "$job/pid" ] && kill -0 "$(cat "$job/pid")" 2>/dev/null; then
    echo "$HOSTNAME running"
  else
    echo "$HOSTNAME lost"
  fi
}

# start_job: on every worker or on none, for one alone would wait for the others while all are billed.
start_job() {
  local code=0
  on_workers "$CALL_LIMIT" all remote_start "$workdir" "${WORDS[@]}" || code=$?
  ((code == 0)) && return
  cp "$ERRORS" "$ERRORS.start"
  if ((code != WRONG_INPUT)); then stop_job >/dev/null || say "and cannot stop what has started"; fi
  mv "$ERRORS.start" "$ERRORS"
  if ((code == WRONG_INPUT)); then bad "$(reason "$code" "$CALL_LIMIT"): wait for it (logs.sh), or run.sh stop"; fi
  return "$code"
}

stop_job() { on_workers "$CALL_LIMIT" all remote_stop "$STOP_LIMIT"; }
job_status() { on_workers "$CALL_LIMIT" all remote_status; }
