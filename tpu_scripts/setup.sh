#!/usr/bin/env bash
# usage: setup.sh [OPTIONS]   install Python, jaxmlm at one commit and its extras on every worker
#
# The workers get the commit of this checkout (or --source URL --commit COMMIT), in ~/jaxmlm with an environment
# ~/jaxmlm/.venv of their own. Running it again brings them to another commit. A TPU that has no ceiling, or that has not
# the right to delete itself, is refused first.
source "$(dirname "$0")/common.sh"

# remote_setup SOURCE REF COMMIT PYTHON EXTRAS, on a worker.
remote_setup() {
  export PATH="$HOME/.local/bin:$PATH"
  command -v uv >/dev/null || python3 -m pip install --quiet --user uv || curl -LsSf https://astral.sh/uv/install.sh | sh
  mkdir -p ~/jaxmlm
  cd ~/jaxmlm
  git init --quiet .
  git fetch --quiet --force "$1" "$2"
  git checkout --quiet --force --detach "$3"
  [ -x .venv/bin/python ] || uv venv --quiet --python "$4" .venv
  uv pip install --quiet --python .venv/bin/python --editable ".[$5]"
  # Reads from a bucket that stall are broken off and tried again; see docs/tpu.md.
  printf 'export %s\n' TENSORSTORE_CURL_LOW_SPEED_TIME_SECONDS=60 TENSORSTORE_CURL_LOW_SPEED_LIMIT_BYTES=1024 >~/jaxmlm.env
  echo "$HOSTNAME: $(.venv/bin/jaxmlm --version), commit $(git rev-parse --short HEAD), $(.venv/bin/python --version)"
}

# remote_ceiling SECONDS WORD..., on a worker: does it end by itself? Its start-up script has SECONDS to say so; WORD... are
# for gcloud to describe the TPU, for who may not even see it cannot delete it.
remote_ceiling() {
  local limit=$1 deadline=/var/lib/jaxmlm/deadline
  shift
  timeout "$limit" bash -c "until [ -s $deadline ]; do sleep 1; done" || { echo "ERROR: $HOSTNAME has no ceiling" >&2; return 2; }
  gcloud compute tpus "$@" --quiet >/dev/null
  echo "$HOSTNAME: deletes itself at $(date -ud "@$(cat $deadline)" +%FT%TZ)"
}

options "$SETUP_USES" "$@"
((${#WORDS[@]} == 0)) || bad "setup.sh takes options only; got '${WORDS[*]}'"
bundle='' ref=$COMMIT
if [ -z "$SOURCE" ]; then
  top=$(git -C "$HERE" rev-parse --show-toplevel 2>/dev/null) || bad "$HERE is in no git checkout: give --source URL --commit COMMIT"
  [ -z "$COMMIT" ] || bad "--commit $COMMIT without --source: check it out here, or give --source URL"
  [ -z "$(git -C "$top" status --porcelain --untracked-files=no)" ] ||
    bad "the workers would get a commit, and $top has changes that are in none: commit or stash them"
  COMMIT=$(git -C "$top" rev-parse HEAD)
  bundle=$(mktemp -d)/jaxmlm.bundle ref=HEAD
  git -C "$top" bundle create --quiet "$bundle" HEAD
fi
[ -n "$COMMIT" ] || bad "--source $SOURCE without --commit: give the commit, which is what every worker will have"
check_login
check_there
BILLED=1
code=0
if ((MAX_SECONDS)); then
  describe=(tpu-vm describe "$NAME")
  [ "$QUEUED" = no ] || describe=(queued-resources describe "$NAME")
  on_workers "$CALL_LIMIT" all remote_ceiling $((CALL_LIMIT / 2)) "${describe[@]}" --project="$PROJECT" --zone="$ZONE" || code=$?
  if ((code == WRONG_INPUT)); then
    bad "$NAME would not end by itself: create.sh has not made it, or with --max-hours 0; delete it, or accept that with --max-hours 0"
  elif ((code)) && grep -q 'PERMISSION_DENIED' "$ERRORS"; then
    bad "$NAME cannot delete itself: its service account needs the role roles/tpu.admin (docs/tpu.md, 'The ceiling'); or accept that with --max-hours 0"
  fi
  ((code == 0)) || gone_wrong "the look at the ceiling" "$code" "$CALL_LIMIT"
fi
if [ -n "$bundle" ]; then
  for node in $(nodes); do
    code=0
    attempt "$COPY_LIMIT" gcloud compute tpus tpu-vm scp "$bundle" "$node:jaxmlm.bundle" --project="$PROJECT" --zone="$ZONE" \
      --worker=all --quiet || code=$?
    ((code == 0)) || gone_wrong "the copy of the package" "$code" "$COPY_LIMIT"
  done
  rm -r "$(dirname "$bundle")"
fi
code=0
on_workers "$SETUP_LIMIT" all remote_setup "${SOURCE:-../jaxmlm.bundle}" "$ref" "$COMMIT" "$PYTHON" "$EXTRAS" || code=$?
((code == 0)) || gone_wrong "the installation" "$code" "$SETUP_LIMIT"
((DRY_RUN)) || say "every worker has commit ${COMMIT:0:12}; next: data.sh, run.sh or babysit.sh"
