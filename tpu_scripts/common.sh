# shellcheck shell=bash disable=SC2034  # the scripts that source this use what it sets
# What the scripts beside this file share: options, checks, retries, the state of a TPU, what is still billed.
# Exit codes are those of jaxmlm: 0 done, 1 failed, 2 wrong input, 75 preempted (run it again).
set -euo pipefail
shopt -u checkwinsize # Bash would write the height of the terminal into LINES

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
SCRIPT=$(basename "$0")
FAILED=1 WRONG_INPUT=2 PREEMPTED=75

# The options, each also a line of config.env. What stands behind a # is its line in --help.
PROJECT=''           # the Google Cloud project (gcloud projects list)
ZONE=''              # where the TPU is, as us-east5-a (gcloud compute tpus locations list)
NAME=''              # what the TPU is called
TYPE=''              # as v6e-16 (gcloud compute tpus accelerator-types list --zone ZONE)
VERSION=''           # the runtime; empty: the one that TYPE needs
CAPACITY=spot        # spot, on-demand, reserved, or flex-start, which the cloud itself ends after --max-hours
QUEUED=yes           # yes: a queued resource, which waits for capacity; no: a TPU VM, now or never
SLICES=1             # how many slices work on one job
MAX_HOURS=24         # the ceiling: the TPU deletes itself after so many hours, whatever this machine does; 0: never
PRICE=''             # of one chip for one hour, in your currency, for what a dry run and create.sh say
BUCKET=''            # the bucket, in the region of ZONE
MOUNT=/gcs           # where the workers see the bucket
SOURCE=''            # a git URL to install from; empty: the checkout that the scripts lie in
COMMIT=''            # the commit to install; empty: that of the checkout
PYTHON=3.11          # the Python to install, 3.11 or newer
EXTRAS=tpu           # the extras of jaxmlm to install
TRIES=4              # how often a command is tried that fails for a reason which may pass
PAUSE=15             # seconds before the second try; twice as many before each further one
POLL=60              # seconds between two looks at something that is awaited
CALL_LIMIT=300       # seconds after which a short command counts as hung
SETUP_LIMIT=1800     # the same for an installation
COPY_LIMIT=14400     # the same for a copy
WAIT_LIMIT=86400     # seconds to wait for capacity; then the request lapses, by itself too
STOP_LIMIT=120       # seconds that a job has to save after SIGTERM
RELAUNCHES=100       # how often a run is started again
STEADY=3600          # seconds of running after which it is forgotten how often a run has failed
REQUIRE=tpu          # the platform that a pre-training must find; empty: any
DELETE=yes           # delete the TPU when the work is done or has failed; no: leave it to its ceiling
LINES=40             # how many lines
FOLLOW=no            # yes: keep printing
MAX_SECONDS=''       # the ceiling in seconds: what is left of --max-hours after a preemption
CLOSE=300            # so many seconds before the ceiling babysit.sh stops the job and deletes the TPU itself

OPTIONS=" PROJECT ZONE NAME TYPE VERSION CAPACITY QUEUED SLICES MAX_HOURS PRICE BUCKET MOUNT SOURCE COMMIT PYTHON EXTRAS
  TRIES PAUSE POLL CALL_LIMIT SETUP_LIMIT COPY_LIMIT WAIT_LIMIT STOP_LIMIT RELAUNCHES STEADY REQUIRE DELETE LINES FOLLOW
  MAX_SECONDS CLOSE "
# What each script's help lists: the options that all of them use, then its own.
ALL_USE="PROJECT ZONE NAME TYPE QUEUED SLICES MAX_HOURS PRICE TRIES PAUSE CALL_LIMIT"
CREATE_USES="VERSION CAPACITY POLL WAIT_LIMIT"
SETUP_USES="SOURCE COMMIT PYTHON EXTRAS SETUP_LIMIT COPY_LIMIT"
DATA_USES="BUCKET MOUNT SETUP_LIMIT COPY_LIMIT"
RUN_USES="MOUNT REQUIRE STOP_LIMIT"
BABYSIT_USES="DELETE VERSION CAPACITY BUCKET MOUNT SOURCE COMMIT PYTHON EXTRAS REQUIRE POLL WAIT_LIMIT SETUP_LIMIT COPY_LIMIT
  STOP_LIMIT RELAUNCHES STEADY CLOSE"

DRY_RUN=0
TPUS=1               # how many TPUs a script makes: study.sh, one for each K
BILLED=0             # 1 once the script may have left something that costs money
GIVEN=()             # the options as they were given, to hand on to another script
WORDS=()             # the words after the options
ERRORS=$(mktemp)     # what the last command of `attempt` said on stderr

say() { printf '%s: %s\n' "$SCRIPT" "$*" >&2; }
bad() { say "$*"; exit "$WRONG_INPUT"; }
fail() { say "$*"; exit "$FAILED"; }

# about NAME: what stands behind the # of an option, above.
about() { sed -n "s/^$1=[^#]*# //p" "$HERE/common.sh"; }

# usage NAMES: the comment at the script's top, then its options.
usage() {
  local name flag
  sed -n '2,${/^#/!q;s/^# \{0,1\}//p}' "$0"
  printf '\nOptions, each also a line of config.env (--max-hours is MAX_HOURS there), with what they are if not given:\n'
  printf '  --%-12s %s\n' 'config FILE' "read this instead of $HERE/config.env" \
    dry-run 'print what it costs and the exact commands, and run none'
  for name in $ALL_USE $1; do
    flag=${name,,}
    printf '  --%-12s %s%s\n' "${flag//_/-}" "$(about "$name")" "${!name:+ (${!name})}"
  done
  printf '%s\n' 'Options of the other scripts are taken too, so that one set serves all.' \
    'Exit codes: 0 done, 1 failed, 2 wrong input, 75 preempted (run it again).'
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

# numbers LEAST NAME...: refuse options that are not whole numbers. Bash would read 010 as 8, continue after 08 as if nothing had
# been given, and take 2^64 for 0, which is no ceiling.
numbers() {
  local least=$1 key flag
  shift
  for key; do
    flag=${key,,} flag=${flag//_/-}
    if ! [[ ${!key} =~ ^(0|[1-9][0-9]{0,8})$ ]] || ((${!key} < least)); then
      bad "$flag '${!key}': give --$flag a whole number from $least to 999999999, without leading zeros ($(about "$key"))"
    fi
  done
}

# options NAMES WORD...: defaults, then config.env, then the options before the first word that is not one. NAMES are those
# that the script uses beside $ALL_USE.
options() {
  local config=$HERE/config.env given=() key uses=$1
  shift
  while (($#)); do
    case $1 in
      -h | --help) usage "$uses"; exit 0 ;;
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
  numbers 1 SLICES TRIES CALL_LIMIT SETUP_LIMIT COPY_LIMIT WAIT_LIMIT RELAUNCHES LINES
  numbers 0 MAX_HOURS ${MAX_SECONDS:+MAX_SECONDS} PAUSE POLL STOP_LIMIT STEADY CLOSE
  [[ $QUEUED =~ ^(yes|no)$ ]] || bad "queued '$QUEUED': give --queued yes or --queued no"
  ((SLICES == 1)) || [ "$QUEUED" = yes ] || bad "$SLICES slices need --queued yes"
  [[ $PRICE =~ ^([0-9]+([.][0-9]+)?)?$ ]] || bad "price '$PRICE': give --price a number, as 1.35"
  [[ $DELETE =~ ^(yes|no)$ ]] || bad "delete '$DELETE': give --delete yes or --delete no"
  : "${MAX_SECONDS:=$((MAX_HOURS * 3600))}"
  BUCKET=${BUCKET#gs://}
}

# ceiling: the ceiling in words.
ceiling() {
  if ((MAX_SECONDS == 0)); then
    echo 'until it is deleted (--max-hours 0)'
  elif ((MAX_SECONDS % 3600)); then
    echo "for at most $(((MAX_SECONDS + 59) / 60)) minutes"
  else
    echo "for at most $((MAX_SECONDS / 3600)) h"
  fi
}

# chips: how many chips all slices have; nothing where the type does not say. Up to v4, and for v5p, a type counts the two
# cores of a chip.
chips() {
  local number=${TYPE##*-}
  [[ $number =~ ^[1-9][0-9]*$ ]] || return 0
  case $TYPE in
    v[234]-* | v5p-*) echo $((number * SLICES * TPUS / 2)) ;;
    v5litepod-* | v6e-*) echo $((number * SLICES * TPUS)) ;;
  esac
}

# price: what the TPU costs, and how to be warned by mail; a line each.
price() {
  local chips hours most=AMOUNT
  chips=$(chips) hours=$(ceiling)
  if [ -z "$PRICE" ] || [ -z "$chips" ]; then
    echo "price: ${chips:-?} chips $hours; --price, that of one chip for one hour (https://cloud.google.com/tpu/pricing), says how much that is"
  elif ((MAX_SECONDS == 0)); then
    echo "price: $chips chips x $PRICE = $(product "$chips" "$PRICE" 3600) an hour, $hours"
  else
    most=$(product "$chips" "$PRICE" "$MAX_SECONDS")
    echo "price: $chips chips x $PRICE = $(product "$chips" "$PRICE" 3600) an hour, $hours: $most in all"
  fi
  echo "budget alert, which warns by mail and stops nothing: $(shown gcloud billing budgets create --billing-account=ACCOUNT \
    --display-name="$NAME" --budget-amount="$most" --threshold-rule=percent=0.5 --threshold-rule=percent=0.9 \
    --filter-projects="projects/$PROJECT") (ACCOUNT: gcloud billing accounts list)"
}
product() { awk "BEGIN {printf \"%.2f\", $1 * $2 * $3 / 3600}"; }

# tell_price: above the commands of a dry run, once, however many scripts take part in it.
tell_price() {
  if ((DRY_RUN)) && [ -z "${PRICE_TOLD:-}" ]; then
    price | sed 's/^/# /'
    export PRICE_TOLD=1
  fi
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

TRACK=()             # the release track of gcloud, for what is in alpha only
tpus() { attempt "$CALL_LIMIT" gcloud "${TRACK[@]}" compute tpus "$@" --project="$PROJECT" --zone="$ZONE" --quiet; }

# described KIND NAME FIELD: a field, or some, of what gcloud knows of NAME; nothing if there is no such thing.
described() {
  tpus "$1" describe "$2" --format="value($3)" || { local code=$?; grep -qi NOT_FOUND "$ERRORS" || return "$code"; }
}

# request_state: of a queued resource; ACTIVE where its nodes have the last word. The nodes of a SUSPENDED one are deleted: by
# the cloud in a preemption, or by somebody.
REQUEST_STATE=state.state,state.stateInitiator
request_state() {
  local state
  state=$(described queued-resources "$NAME" "$REQUEST_STATE") || return $?
  case $state in
    '') echo ABSENT ;;
    ACTIVE*) echo ACTIVE ;;
    DELETING* | SUSPEND*USER) echo DELETING ;;
    SUSPEND*) echo PREEMPTED ;;
    FAILED*) echo FAILED ;;
    *) echo WAITING ;;
  esac
}

# state_of: ABSENT, WAITING (for capacity), READY, PREEMPTED, FAILED, or DELETING (by somebody, its ceiling, or delete.sh).
state_of() { # `return 0`, not `return`: in a trap that would be the status from before it
  local node state
  if [ "$QUEUED" = yes ]; then
    state=$(request_state) || return $?
    [ "$state" = ACTIVE ] || { echo "$state"; return 0; }
  fi
  for node in $(nodes); do
    state=$(described tpu-vm "$node" state) || return $?
    case $state in
      READY) ;;
      '') if [ "$QUEUED" = yes ]; then echo PREEMPTED; else echo ABSENT; fi; return 0 ;;
      PREEMPTED | TERMINATED) echo PREEMPTED; return 0 ;;
      CREATING | STARTING | RESTARTING | REPAIRING) echo WAITING; return 0 ;;
      DELETING) # a preemption deletes as well, and the request knows of it by now
        [ "$QUEUED" = no ] || state=$(request_state) || return $?
        if [ "$state" = PREEMPTED ]; then echo PREEMPTED; else echo DELETING; fi
        return 0
        ;;
      *) echo FAILED; return 0 ;;
    esac
  done
  echo READY
}

# wait_ready: until the TPU is there; through a time without an answer too.
wait_ready() {
  local code state why last='' until=$((SECONDS + WAIT_LIMIT))
  if ((DRY_RUN)); then
    if [ "$QUEUED" = yes ]; then described queued-resources "$NAME" "$REQUEST_STATE"; else described tpu-vm "$NAME" state; fi
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
      ABSENT) fail "there is no $NAME in $ZONE: somebody has deleted it, or nobody has asked for it (create.sh --name $NAME)" ;;
      DELETING) fail "$NAME is being deleted, by somebody or by its ceiling" ;;
      *)
        why=$(described queued-resources "$NAME" state.failedData.error.message || true)
        fail "$NAME is $state: ${why:-the cloud does not say why}"
        ;;
    esac
    last=$state
    sleep "$POLL"
  done
  fail "no capacity for $NAME within $WAIT_LIMIT s: its request lapses now; delete it and try another zone, --capacity or --wait-limit"
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

# check_login, once the words are right; a dry run needs no login, and says what its commands cost.
check_login() {
  if ((DRY_RUN)); then tell_price; return 0; fi
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
    DELETING) bad "$NAME is being deleted: make it anew with create.sh --name $NAME as soon as it is gone" ;;
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
      DELETING) say "not billed any more as soon as it is gone: $NAME is being deleted; make sure of it: $(delete_command)" ;;
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
