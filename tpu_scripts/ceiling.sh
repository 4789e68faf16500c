#!/usr/bin/env bash
# The start-up script of every worker, which create.sh gives to a TPU; it is not run by hand.
#
# At its ceiling, --max-hours after its first start, a worker tells the job to save, deletes the TPU and shuts itself down.
# Nothing outside the TPU is needed for that: no babysit.sh, no machine of its user that is awake.
set -u
PLACE=/var/lib/jaxmlm
SAVE_LIMIT=120  # seconds that a job has to save

about() { curl -sf -H 'Metadata-Flavor: Google' "http://metadata.google.internal/computeMetadata/v1/instance/attributes/$1"; }

# running: the process group of each job that has not ended, whoever has started it.
running() {
  local job
  for job in /home/*/jaxmlm-job; do
    if [ -f "$job/pid" ] && [ ! -f "$job/exit" ] && kill -0 -- "-$(cat "$job/pid")"; then cat "$job/pid"; fi
  done 2>/dev/null
}

end() {
  local group waited try
  for group in $(running); do kill -TERM -- "-$group"; done
  for ((waited = 0; waited < SAVE_LIMIT; waited++)); do
    [ -n "$(running)" ] || break
    sleep 1
  done
  for try in 1 2 3; do # every worker asks, and the first one is enough
    if gcloud compute tpus "$@" --quiet; then break; fi
    echo "jaxmlm: try $try of 3 to delete the TPU has failed"
    sleep 10
  done
  shutdown -P now
}

if [ "${1:-}" = end ]; then
  end "${@:2}"
  exit
fi
seconds=$(about jaxmlm-max-seconds) || exit 1
read -ra delete <<<"$(about jaxmlm-delete)"
mkdir -p "$PLACE"
cp "$0" "$PLACE/ceiling.sh"
now=$(date +%s)
[ -s "$PLACE/deadline" ] || echo $((now + seconds)) >"$PLACE/deadline" # a worker that starts again keeps it
left=$(($(cat "$PLACE/deadline") - now))
((left > 0)) || left=1
shutdown -P +$((left / 60 + 15)) # should the rest fail
systemd-run --unit=jaxmlm-ceiling --on-active="${left}s" /bin/bash "$PLACE/ceiling.sh" end "${delete[@]}"
