#!/usr/bin/env bash
# usage: data.sh [OPTIONS] mount            mount the bucket on every worker, at --mount
#        data.sh [OPTIONS] copy DIR DEST    copy a directory, as a token store, to DEST on every worker's own disk
#
# What the workers write (a --workdir) belongs into the bucket: their disks are their own, and go with the TPU.
source "$(dirname "$0")/common.sh"

# remote_mount BUCKET DIRECTORY, on a worker: mounts it with gcsfuse, and proves that it can be written.
remote_mount() {
  local distribution
  if ! command -v gcsfuse >/dev/null; then # https://cloud.google.com/storage/docs/cloud-storage-fuse/install
    distribution=$(lsb_release -cs)
    sudo systemctl stop unattended-upgrades || true # it holds apt's lock
    curl -fsSL https://packages.cloud.google.com/apt/doc/apt-key.gpg | sudo tee /usr/share/keyrings/cloud.google.asc >/dev/null
    echo "deb [signed-by=/usr/share/keyrings/cloud.google.asc] https://packages.cloud.google.com/apt gcsfuse-$distribution main" |
      sudo tee /etc/apt/sources.list.d/gcsfuse.list >/dev/null
    sudo apt-get -qq -o DPkg::Lock::Timeout=600 update
    sudo apt-get -qq -o DPkg::Lock::Timeout=600 install -y gcsfuse
  fi
  if ! mountpoint -q "$2"; then # into what a user has mounted not even root may look
    sudo mkdir -p "$2"
    sudo chown "$(id -un)" "$2"
    gcsfuse --implicit-dirs "$1" "$2" >/dev/null
  fi
  if ! touch "$2/.jaxmlm-$HOSTNAME" || ! rm "$2/.jaxmlm-$HOSTNAME"; then
    echo "ERROR: $HOSTNAME may not write to the bucket" >&2
    return 2
  fi
  echo "$HOSTNAME: gs://$1 is mounted at $2"
}

# remote_take PART NAME DEST BYTES, on a worker: puts the copy PART/NAME in its place if it is complete.
remote_take() {
  local bytes
  bytes=$(cd "$1/$2" && find . -type f -printf '%s\n' | awk '{sum += $1} END {print sum + 0}')
  [ "$bytes" = "$4" ] || { echo "ERROR: $HOSTNAME has $bytes of $4 bytes" >&2; return 1; }
  rm -rf "$3"
  mv "$1/$2" "$3"
  rmdir "$1"
  echo "$HOSTNAME: $3 is complete, $bytes bytes"
}

# remote_clear PART, on a worker: the directory for a copy. It is there before scp, which then puts the second try where the
# first one was.
remote_clear() { rm -rf "$1" && mkdir -p "$1"; }

options "$DATA_USES" "$@"
code=0
case ${WORDS[0]:-} in
  mount)
    ((${#WORDS[@]} == 1)) || bad "data.sh mount takes no more words; got '${WORDS[*]:1}'"
    [ -n "$BUCKET" ] || bad "no bucket: give --bucket, or write BUCKET= into config.env (gcloud storage buckets list)"
    check_login
    check_there
    attempt "$CALL_LIMIT" gcloud storage ls --project="$PROJECT" --buckets "gs://$BUCKET" || code=$?
    if ((code)); then
      ! permanent "$code" || bad "no rights to bucket gs://$BUCKET, or no such bucket ($(reason "$code" "$CALL_LIMIT")): see 'The bucket' in docs/tpu.md"
      fail "cannot reach bucket gs://$BUCKET: $(reason "$code" "$CALL_LIMIT")"
    fi
    BILLED=1
    on_workers "$SETUP_LIMIT" all remote_mount "$BUCKET" "$MOUNT" || code=$?
    if ((code == WRONG_INPUT)); then
      BILLED=0
      bad "the workers may not write to bucket gs://$BUCKET: give their service account the role storage.objectUser, see 'The bucket' in docs/tpu.md"
    fi
    ((code == 0)) || gone_wrong "the mount" "$code" "$SETUP_LIMIT"
    ;;
  copy)
    ((${#WORDS[@]} == 3)) || bad "write: data.sh copy DIR DEST"
    from=${WORDS[1]} to=${WORDS[2]}
    [ -d "$from" ] || bad "no directory $from on this machine"
    from=$(cd "$from" && pwd)
    bytes=$(cd "$from" && find . -type f -printf '%s\n' | awk '{sum += $1} END {print sum + 0}')
    check_login
    check_there
    BILLED=1
    on_workers "$CALL_LIMIT" all remote_clear "$to.part" || gone_wrong "the copy" $? "$CALL_LIMIT"
    for node in $(nodes); do
      attempt "$COPY_LIMIT" gcloud compute tpus tpu-vm scp --recurse "$from" "$node:$to.part" --project="$PROJECT" --zone="$ZONE" \
        --worker=all --quiet || code=$?
      ((code == 0)) || gone_wrong "the copy" "$code" "$COPY_LIMIT"
    done
    on_workers "$CALL_LIMIT" all remote_take "$to.part" "${from##*/}" "$to" "$bytes" || gone_wrong "the copy" $? "$CALL_LIMIT"
    ;;
  *) bad "write: data.sh mount, or data.sh copy DIR DEST" ;;
esac
