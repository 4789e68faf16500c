#!/usr/bin/env bash
# usage: run.sh [OPTIONS] VERB ...   start `jaxmlm VERB ...` on every worker, detached: it continues when this machine leaves
#        run.sh [OPTIONS] stop       let it finish its step, save and end
#
#   run.sh pretrain configs/quickstart_run.py --workdir /gcs/runs/mine --masking.rate 0.4
#
# The command runs in ~/jaxmlm, so configs/ is what the installed commit has. Its output is in ~/jaxmlm-job/log of each
# worker, and every minute in WORKDIR/logs. A TPU does one job at a time; starting the same command again resumes it.
source "$(dirname "$0")/common.sh"
source "$HERE/job.sh"
options "$RUN_USES" "$@"
((${#WORDS[@]})) || bad "what to run? write: run.sh pretrain CONFIG --workdir DIRECTORY"
if [ "${WORDS[*]}" = stop ]; then
  check_login
  check_there
  BILLED=1
  stop_job || gone_wrong "stopping the job" $? "$CALL_LIMIT"
  exit
fi
check_job
check_login
check_there
check_workdir
BILLED=1
start_job || gone_wrong "the start" $? "$CALL_LIMIT"
((DRY_RUN)) || say "started on every worker of $NAME; look with logs.sh --name $NAME; billed until delete.sh, or its ceiling"
