#!/usr/bin/env bash
# usage: logs.sh [OPTIONS]   the last --lines of the job's output on every worker, and whether it runs
#
# --follow yes keeps printing what the first worker says, until Ctrl-C. The logs of a TPU that is gone are in
# WORKDIR/logs in the bucket.
source "$(dirname "$0")/common.sh"

# remote_logs LINES, on a worker.
remote_logs() {
  local job=~/jaxmlm-job state=running
  [ -f "$job/log" ] || { echo "$HOSTNAME: no job was started"; return; }
  [ ! -f "$job/exit" ] || state="ended, exit $(cat "$job/exit")"
  tail -n "$1" "$job/log" | sed "s/^/$HOSTNAME: /"
  echo "$HOSTNAME: $state"
}
remote_follow() { exec tail -n "$1" -F ~/jaxmlm-job/log; }

options 'LINES FOLLOW COPY_LIMIT' "$@"
((${#WORDS[@]} == 0)) || bad "logs.sh takes options only; got '${WORDS[*]}'"
check_login
check_there
BILLED=1
code=0
if [ "$FOLLOW" = yes ]; then
  on_workers "$COPY_LIMIT" 0 remote_follow "$LINES" || code=$?
else
  on_workers "$CALL_LIMIT" all remote_logs "$LINES" || code=$?
fi
((code == 0)) || gone_wrong "reading the logs" "$code" "$CALL_LIMIT"
