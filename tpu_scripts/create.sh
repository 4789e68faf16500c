#!/usr/bin/env bash
# usage: create.sh [OPTIONS]        make a TPU and wait until it is ready
#        create.sh [OPTIONS] ask    only request it
#        create.sh [OPTIONS] wait   keep waiting for one that was requested
#
# A queued resource (--queued yes) waits for capacity; a TPU VM (--queued no) is there at once or never. --slices 2 makes
# two slices that work on one job. A name that exists is refused, and a request whose answer is lost is not sent again
# before it is sure that it left nothing: there are never two.
#
# The workers get ceiling.sh as their start-up script: --max-hours after its first start the TPU tells its job to save,
# deletes itself and shuts down, with or without this machine. A request without capacity lapses after --wait-limit.
source "$(dirname "$0")/common.sh"
options "$CREATE_USES" "$@"

# known WHAT VALUE LIST: refuse a value that is not in the list.
known() { grep -qxF -- "$2" <<<"$3" || bad "unknown $1 '$2'; known: $(xargs <<<"$3")"; }

check_place() {
  local zones types
  zones=$(attempt "$CALL_LIMIT" gcloud compute tpus locations list --project="$PROJECT" --format='value(locationId)' --quiet) ||
    fail "cannot list the zones that project $PROJECT may use: $(reason $? "$CALL_LIMIT")"
  known zone "$ZONE" "$zones"
  types=$(tpus accelerator-types list --format='value(type)') || fail "cannot list the types: $(reason $? "$CALL_LIMIT")"
  known type "$TYPE" "$types"
}

# ask COMMAND...: request the TPU; again only when the reason may pass and the last request has left nothing.
ask() {
  local try code why final state
  for ((try = 1; ; try++)); do
    code=0
    TRIES=1 tpus "$@" || code=$?
    ((code)) || return 0
    why=$(reason "$code" "$CALL_LIMIT") final=0
    ! permanent "$code" || final=1
    state=$(state_of) || fail "asked for $NAME ($why), and cannot tell whether it is there: $(reason $? "$CALL_LIMIT")"
    if [ "$state" != ABSENT ]; then say "$NAME was asked for, though the answer was lost ($why)"; return; fi
    if ((try >= TRIES || final)); then fail "cannot make $NAME: $why"; fi
    say "try $try of $TRIES: $why; again in $PAUSE s"
    sleep "$PAUSE"
  done
}

if [ -z "$VERSION" ]; then # https://cloud.google.com/tpu/docs/runtimes
  case $TYPE in
    v6e-*) VERSION=v2-alpha-tpuv6e ;;
    v5p-*) VERSION=v2-alpha-tpuv5 ;;
    v5litepod-*) VERSION=v2-alpha-tpuv5-lite ;;
    v[234]-*) VERSION=tpu-ubuntu2204-base ;;
    '') bad "no type: give --type, or write TYPE= into config.env (gcloud compute tpus accelerator-types list --zone $ZONE)" ;;
    *) bad "type '$TYPE': known are v2-8, v3-8, v4-8, v5litepod-16, v5p-8, v6e-8 and their like (TPU7x: docs/tpu-gke.md); give --version for another" ;;
  esac
fi
case $CAPACITY in
  spot) capacity=(--spot) ;;
  reserved) capacity=(--reserved) ;;
  on-demand) capacity=() ;;
  flex-start)
    [ "$QUEUED" = yes ] || bad "capacity flex-start needs --queued yes"
    ((MAX_SECONDS > 0 && MAX_SECONDS <= 604800)) || bad "capacity flex-start lasts for 1 to 168 hours: give --max-hours"
    capacity=(--provisioning-model=flex-start --max-run-duration="${MAX_SECONDS}s") TRACK=(alpha)
    ;;
  *) bad "capacity '$CAPACITY': give --capacity spot, reserved, on-demand or flex-start" ;;
esac
case $QUEUED,$SLICES in
  no,*) command=(tpu-vm create "$NAME" --version="$VERSION") ;;
  yes,1) command=(queued-resources create "$NAME" --node-id="$NAME" --runtime-version="$VERSION") ;;
  *) command=(queued-resources create "$NAME" --node-count="$SLICES" --node-prefix="$NAME" --runtime-version="$VERSION") ;;
esac
if [ "$QUEUED" = yes ]; then
  command+=(--valid-until-duration="${WAIT_LIMIT}s")
  delete="queued-resources delete $NAME --force"
else
  delete="tpu-vm delete $NAME"
fi
command+=(--accelerator-type="$TYPE" "${capacity[@]}")
if ((MAX_SECONDS)); then
  command+=(--metadata-from-file=startup-script="$HERE/ceiling.sh"
    --metadata="jaxmlm-max-seconds=$MAX_SECONDS,jaxmlm-delete=$delete --project=$PROJECT --zone=$ZONE")
fi

check_login
case ${WORDS[*]} in
  '' | ask)
    if ((!DRY_RUN)); then
      check_place
      state=$(state_of) || fail "cannot tell whether $NAME exists: $(reason $? "$CALL_LIMIT")"
      [ "$state" != DELETING ] ||
        bad "$NAME is being deleted in $ZONE: wait until it is gone ($(delete_command)), or take another --name"
      [ "$state" = ABSENT ] ||
        bad "$NAME exists in $ZONE ($state): continue with setup.sh, take another --name, or delete it: $(delete_command)"
    fi
    ((DRY_RUN)) || while read -r line; do say "$line"; done < <(price)
    BILLED=1
    ask "${command[@]}"
    TRACK=()
    ;;
  wait) BILLED=1 ;;
  *) bad "create.sh takes options, and perhaps the word ask or wait; got '${WORDS[*]}'" ;;
esac
[ "${WORDS[*]}" != ask ] || exit 0
wait_ready
((DRY_RUN)) || say "billed from now on: $NAME ($SLICES x $TYPE in $ZONE, $CAPACITY), $(ceiling); next: setup.sh --name $NAME"
