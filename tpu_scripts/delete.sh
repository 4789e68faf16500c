#!/usr/bin/env bash
# usage: delete.sh [OPTIONS]   delete the TPU, whatever its state, and make sure that it is gone
#
# What is in the bucket stays. What is on the workers' own disks is lost.
source "$(dirname "$0")/common.sh"
options POLL "$@"
((${#WORDS[@]} == 0)) || bad "delete.sh takes options only; got '${WORDS[*]}' (say --name ${WORDS[0]})"
check_login
if [ "$QUEUED" = yes ]; then
  command=(queued-resources delete "$NAME" --force)
else
  command=(tpu-vm delete "$NAME")
fi
tries=$TRIES
if ((!DRY_RUN)); then
  BILLED=1
  state=$(state_of) || fail "cannot tell whether $NAME exists: $(reason $? "$CALL_LIMIT")"
  if [ "$state" = ABSENT ]; then say "there is no $NAME in $ZONE: nothing to delete"; exit; fi
  [ "$state" != DELETING ] || tries=1 # somebody has ordered that already
fi
code=0
TRIES=$tries tpus "${command[@]}" || code=$?
if ((code && !DRY_RUN)); then # the answer may be lost, or another delete may have been quicker; a deletion takes its time
  why=$(reason "$code" "$CALL_LIMIT") until=$((SECONDS + TRIES * CALL_LIMIT))
  while state=$(state_of) || state=UNKNOWN; [ "$state" = DELETING ] && ((SECONDS < until)); do sleep "$POLL"; done
  [ "$state" = ABSENT ] || fail "cannot delete $NAME: $why"
fi
((DRY_RUN)) || say "deleted: $NAME; it is not billed any more"
