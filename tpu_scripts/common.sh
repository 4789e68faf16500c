# shellcheck shell=bash disable=SC2034  # the scripts that source this use what it sets
# What the scripts beside this file share: options, checks, retries, the state of a TPU, what is still billed.
# Exit codes are those of jaxmlm: 0 done, 1 failed, 2 wrong input, 75 preempted (run it again).
set -euo pipefail

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
SCRIPT=$(basename "$0")
FAILED=1 WRONG_INPUT=2 PREEMPTED=75

PROJECT='' ZONE='' NAME='' TYPE='' VERSION='' CAPACITY=spot QUEUED=yes SLICES=1
BUCKET='' MOUNT=/gcs SOURCE='' COMMIT='' PYTHON=3.11 EXTRAS=tpu
TRIES=4              # how often a command is tried that fails for a reason which may pass
PAUSE=15             # seconds before the second try; twice as many before each further one
POLL=60              # seconds between two looks at something that is awaited
CALL_LIMIT=300       # seconds after which a short command counts as hung
SETUP_LIMIT=1800     # the same for an installation
COPY_LIMIT=14400     # the same for a copy
WAIT_LIMIT=86400     # seconds to wait for capacity
STOP_LIMIT=120       # seconds that a job has to save after SIGTERM
RELAUNCHES=100       # how often babysit.sh starts a run again
STEADY=3600          # seconds of running after which babysit.sh forgets how often a run has failed
REQUIRE=tpu          # the platform that a pre-training must find; empty: any
DELETE=no            # babysit.sh, study.sh: delete the TPU when the work is done
LINES=40             # logs.sh: how many
FOLLOW=no            # logs.sh: keep printing
OPTIONS=" PROJECT ZONE NAME TYPE VERSION CAPACITY QUEUED SLICES BUCKET MOUNT SOURCE COMMIT PYTHON EXTRAS TRIES PAUSE POLL
  CALL_LIMIT SETUP_LIMIT COPY_LIMIT WAIT_LIMIT STOP_LIMIT RELAUNCHES STEADY REQUIRE DELETE LINES FOLLOW "

DRY_RUN=0
BILLED=0             # 1 once the script may have left something that costs money
GIVEN=()             # the options as they were given, to hand on to another script
WORDS=()             # the words after the options
ERRORS=$(mktemp)     # what the last command of `attempt` said on stderr

say() { printf '%s: %s\n' "$SCRIPT" "$*" >&2; }
bad() { say "$*"; exit "$WRONG_INPUT"; }
fail() { say "$*"; exit "$FAILED"; }

# The help of a script is the comment at its top.
usage() {
  sed -n '2,${/^#/!q;s/^# \{0,1\}//p}' "$0"
  cat <<END

Options, each also a line of config.env (config.env.example explains them):
  --config FILE   read this instead of $HERE/config.env
  --dry-run       print the exact commands and run none
  --project --zone --name --type --version --capacity --queued --slices --bucket --mount --source --commit --python
  --extras --tries --pause --poll --call-limit --setup-limit --copy-limit --wait-limit --stop-limit --relaunches
  --steady --require --delete --lines --follow (common.sh explains those that config.env.example does not)
Exit codes: 0 done, 1 failed, 2 wrong input, 75 preempted (run it again).
END
}

# read_config FILE: take its values. An editor of another system may have left a byte-order mark and carriage returns.
read_config() {
  local text said
  text=$(<"$1") text=${text#$'\xef\xbb\xbf'} text=${text//$'\r\n'/$'\n'} text=${text//$'\r'/$'\n'}
  # In a shell of its own first, where a line that is wrong ends nothing but that.
  said=$(bash -ec 'source /dev/stdin' 2>&1 >/dev/null <<<"$text") || bad "$1, ${said#*/dev/stdin: }: write NAME=VALUE, without spaces \
around the =, and a VALUE with spaces in quotes"
  # shellcheck source=/dev/null
  source /dev/stdin <<<"$text"
}

# options WORD...: defaults, then config.env, then the options before the first word that is none.
options() {
  local config=$HERE/config.env given=() key
  while (($#)); do
    case $1 in
      -h | --help) usage; exit 0 ;;
      --dry-run) DRY_RUN=1; GIVEN+=("$1"); shift; continue ;;
      --*) ;;
      *) break ;;
    esac
    (($# > 1)) || bad "$1 needs a value; $SCRIPT --help lists the options"
    key=${1#--} key=${key^^} key=${key//-/_}
    if [ "$key" = CONFIG ]; then
      config=$2
      [ -f "$config" ] || bad "no file $config: copy $HERE/config.env.example and fill it in"
    elif [[ $OPTIONS =~ [[:space:]]"$key"[[:space:]] ]]; then
      given+=("$key=$2")
    else
      bad "unknown option $1; $SCRIPT --help lists the options"
    fi
    GIVEN+=("$1" "$2")
    shift 2
  done
  WORDS=("$@")
  [ ! -f "$config" ] || read_config "$config"
  for key in "${given[@]}"; do printf -v "${key%%=*}" %s "${key#*=}"; done
  [ -n "$PROJECT" ] || bad "no project: give --project, or write PROJECT= into $config (gcloud projects list)"
  [ -n "$ZONE" ] || bad "no zone: give --zone, or write ZONE= into $config (gcloud compute tpus locations list)"
  [[ $NAME =~ ^[a-z]([-a-z0-9]{0,58}[a-z0-9])?$ ]] || bad "name '$NAME': give --name with lower-case letters, digits and hyphens"
  [[ $SLICES =~ ^[1-9][0-9]*$ ]] || bad "slices '$SLICES': give --slices a number from 1"
  [[ $QUEUED =~ ^(yes|no)$ ]] || bad "queued '$QUEUED': give --queued yes or --queued no"
  ((SLICES == 1)) || [ "$QUEUED" = yes ] || bad "$SLICES slices need --queued yes"
  BUCKET=${BUCKET#gs://}
}

# nodes: the TPU VMs by name; one slice has the name of the whole.
nodes() {
  if ((SLICES == 1)); then echo "$NAME"; else seq -f "$NAME-%g" 0 $((SLICES - 1)); fi
}

# shown WORD...: the words as a command line that can be pasted.
shown() {
  local word line=''
  for word; do
    case $word in
      '' | *[!A-Za-z0-9_./:=@,+%-]*) line+="'${word//\'/\'\\\'\'}' " ;;
      *) line+="$word " ;;
    esac
  done
  echo "${line% }"
}

# attempt SECONDS COMMAND...: run a command for at most so long, and again while it fails for a reason that may pass.
attempt() {
  local limit=$1 pause=$PAUSE code try
  shift
  if ((DRY_RUN)); then shown "$@"; return 0; fi
  for ((try = 1; ; try++)); do
    code=0
    timeout --foreground --kill-after=10 "$limit" "$@" </dev/null 2>"$ERRORS" || code=$?
    ((code)) || return 0
    if ((try >= TRIES)) || permanent "$code"; then return "$code"; fi
    say "try $try of $TRIES: $(reason "$code" "$limit"); again in $pause s"
    sleep "$pause"
    pause=$((pause * 2))
  done
}

permanent() {
  (($1 == WRONG_INPUT)) || grep -Eqi \
    'PERMISSION_DENIED|NOT_FOUND|ALREADY_EXISTS|INVALID_ARGUMENT|UNAUTHENTICATED|quota|terminal state|HTTPError 40[134]|: 404' "$ERRORS"
}

# reason CODE SECONDS: why the last attempt failed, in one line.
reason() {
  if (($1 == 124 || $1 == 137)); then echo "no answer within $2 s"; return 0; fi
  local said
  said=$(grep -vE '^(##### Command execution|SSH: Attempting|Using ssh batch)|^$' "$ERRORS" || true)
  { grep ERROR <<<"$said" || echo "${said:-exit code $1}"; } | tail -n 1 | cut -c -300
}

tpus() { attempt "$CALL_LIMIT" gcloud compute tpus "$@" --project="$PROJECT" --zone="$ZONE" --quiet; }

# described KIND NAME FIELD: a field of what gcloud knows of NAME; nothing if there is no such thing.
described() {
  tpus "$1" describe "$2" --format="value($3)" || { local code=$?; grep -qi NOT_FOUND "$ERRORS" || return "$code"; }
}

# state_of: ABSENT, WAITING (for capacity), READY, PREEMPTED or FAILED.
state_of() { # `return 0`, not `return`: in a trap that would be the status from before it
  local node state
  if [ "$QUEUED" = yes ]; then
    state=$(described queued-resources "$NAME" state.state) || return $?
    case $state in
      '') echo ABSENT; return 0 ;;
      ACTIVE) ;;
      SUSPENDING | SUSPENDED) echo PREEMPTED; return 0 ;;
      FAILED) echo FAILED; return 0 ;;
      *) echo WAITING; return 0 ;;
    esac
  fi
  for node in $(nodes); do
    state=$(described tpu-vm "$node" state) || return $?
    case $state in
      READY) ;;
      '') if [ "$QUEUED" = yes ]; then echo PREEMPTED; else echo ABSENT; fi; return 0 ;;
      PREEMPTED | TERMINATED) echo PREEMPTED; return 0 ;;
      CREATING | STARTING | RESTARTING | REPAIRING) echo WAITING; return 0 ;;
      *) echo FAILED; return 0 ;;
    esac
  done
  echo READY
}

# wait_ready: until the TPU is there; through a time without an answer too.
wait_ready() {
  local code state last='' until=$((SECONDS + WAIT_LIMIT))
  if ((DRY_RUN)); then
    if [ "$QUEUED" = yes ]; then described queued-resources "$NAME" state.state; else described tpu-vm "$NAME" state; fi
    return
  fi
  while ((SECONDS < until)); do
    code=0
    state=$(state_of) || code=$?
    ((code == 0)) || ! permanent "$code" || fail "cannot tell the state of $NAME: $(reason "$code" "$CALL_LIMIT")"
    case $state in
      READY) say "$NAME is ready"; return ;;
      '') say "cannot tell the state of $NAME ($(reason "$code" "$CALL_LIMIT")); again in $POLL s" ;;
      WAITING) [ "$last" = WAITING ] || say "$NAME waits for capacity in $ZONE; a look every $POLL s" ;;
      PREEMPTED) say "$NAME was preempted while it was made"; exit "$PREEMPTED" ;;
      *) fail "$NAME is $state: $(described queued-resources "$NAME" state.failedData.error.message || true)" ;;
    esac
    last=$state
    sleep "$POLL"
  done
  fail "no capacity for $NAME within $WAIT_LIMIT s: keep waiting with create.sh --name $NAME wait, or try another zone"
}

# on_workers SECONDS WORKERS FUNCTION WORD...: run a function of this machine's scripts on WORKERS (all, or a number).
on_workers() {
  local limit=$1 workers=$2 function=$3 command node code=0
  shift 3
  command="set -eu; $(declare -f "$function"); $(shown "$function" "$@")"
  for node in $(nodes); do
    attempt "$limit" gcloud compute tpus tpu-vm ssh "$node" --project="$PROJECT" --zone="$ZONE" --quiet \
      --worker="$workers" --command="$command" || { code=$?; break; }
    [ "$workers" = all ] || break  # one worker by number: that of the first slice
  done
  return "$code"
}

# gone_wrong WHAT CODE SECONDS: end with 75 if the TPU was preempted meanwhile, else with the reason.
gone_wrong() {
  local why
  why=$(reason "$2" "$3")
  if [ "$(state_of || true)" = PREEMPTED ]; then
    say "$NAME was preempted: $1 is not done"
    exit "$PREEMPTED"
  fi
  fail "$1 failed: $why"
}

check_login() {
  ((!DRY_RUN)) || return 0
  command -v gcloud >/dev/null || bad "no gcloud on the PATH: install the Google Cloud CLI, https://cloud.google.com/sdk/docs/install"
  [ -n "$(attempt "$CALL_LIMIT" gcloud auth list --filter=status:ACTIVE --format='value(account)')" ] ||
    bad "no account is logged in: run gcloud auth login"
}

check_there() {
  local state
  ((!DRY_RUN)) || return 0
  state=$(state_of) || fail "cannot tell the state of $NAME: $(reason $? "$CALL_LIMIT")"
  case $state in
    READY) ;;
    ABSENT) bad "there is no TPU $NAME in $ZONE: make it with create.sh --name $NAME" ;;
    PREEMPTED) say "$NAME was preempted: delete.sh and create.sh make a new one, babysit.sh does all that"; exit "$PREEMPTED" ;;
    *) bad "$NAME is not ready ($state): wait with create.sh --name $NAME wait, or delete it with delete.sh --name $NAME" ;;
  esac
}

# finish: whenever a script ends badly, say what still costs money and how to stop that.
finish() {
  local code=$? state
  trap - EXIT
  if ((code && BILLED && !DRY_RUN)); then
    state=$(TRIES=1 state_of 2>/dev/null) || state=UNKNOWN
    case $state in
      ABSENT) say "nothing is billed: there is no $NAME" ;;
      PREEMPTED) say "not billed any more, but the name is taken: $NAME; delete it: $(delete_command)" ;;
      WAITING) say "not billed yet, but as soon as there is capacity: $NAME ($SLICES x $TYPE in $ZONE); delete it: $(delete_command)" ;;
      READY | FAILED) say "STILL BILLED: $NAME ($SLICES x $TYPE in $ZONE); delete it: $(delete_command)" ;;
      *) say "PERHAPS STILL BILLED: $NAME (its state is unknown); delete it: $(delete_command)" ;;
    esac
  fi
  rm -f "$ERRORS"
  exit "$code"
}

# Ends well or badly, in an error or by a signal: `finish` has the last word.
trap finish EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

delete_command() { shown "$HERE/delete.sh" --project "$PROJECT" --zone "$ZONE" --queued "$QUEUED" --name "$NAME"; }
