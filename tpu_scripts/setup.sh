#!/usr/bin/env bash
# usage: setup.sh [OPTIONS]   install Python, jaxmlm at one commit and its extras on every worker
#
# The workers get the commit of this checkout (or --source URL --commit COMMIT), in ~/jaxmlm with an environment
# ~/jaxmlm/.venv of their own. Running it again brings them to another commit.
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

options "$@"
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
