#!/usr/bin/env bash
# usage: fetch.sh [OPTIONS] DIRECTORY DEST   bring DIRECTORY of the workers, as a run's --workdir, to DEST on this machine
#
# A DIRECTORY below --mount comes out of the bucket, with or without a TPU; any other from the first worker's disk.
# Running it again brings what is new.
source "$(dirname "$0")/common.sh"
options 'BUCKET MOUNT COPY_LIMIT' "$@"
((${#WORDS[@]} == 2)) || bad "write: fetch.sh DIRECTORY DEST, as fetch.sh $MOUNT/runs/mine runs/mine"
from=${WORDS[0]%/} to=${WORDS[1]}
[ ! -e "$to" ] || [ -d "$to" ] || bad "$to is a file: name a directory"
check_login
code=0
if [[ $from == "$MOUNT"/* ]]; then
  [ -n "$BUCKET" ] || bad "no bucket: give --bucket, or write BUCKET= into config.env"
  ((DRY_RUN)) || mkdir -p "$to"
  BILLED=1
  attempt "$COPY_LIMIT" gcloud storage rsync --recursive --project="$PROJECT" --quiet "gs://$BUCKET/${from#"$MOUNT"/}" "$to" || code=$?
  if ((code)); then
    rmdir "$to" 2>/dev/null || true # leave nothing if nothing came
    if permanent "$code"; then
      BILLED=0
      bad "cannot read gs://$BUCKET/${from#"$MOUNT"/} ($(reason "$code" "$COPY_LIMIT")): look with gcloud storage ls gs://$BUCKET"
    fi
    fail "the copy failed: $(reason "$code" "$COPY_LIMIT"); what has come is in $to, run it again for the rest"
  fi
else
  [ ! -d "$to" ] || bad "$to is there already: name a new directory"
  check_there
  BILLED=1
  node=$(nodes | head -n 1)
  # Into a directory that is there, for scp then puts the second try where the first one was.
  ((DRY_RUN)) || { rm -rf "$to.part" && mkdir -p "$to.part"; }
  attempt "$COPY_LIMIT" gcloud compute tpus tpu-vm scp --recurse "$node:$from" "$to.part" --project="$PROJECT" --zone="$ZONE" \
    --worker=0 --quiet || code=$?
  if ((code)); then
    rm -rf "$to.part"
    gone_wrong "the copy" "$code" "$COPY_LIMIT"
  fi
  ((DRY_RUN)) || { mv "$to.part/$(ls -A "$to.part")" "$to" && rmdir "$to.part"; }
fi
((DRY_RUN)) || say "$to: $(find "$to" -type f | wc -l) files, $(du -sh "$to" | cut -f 1)$([ ! -e "$to/DONE" ] || echo ', a finished run')"
