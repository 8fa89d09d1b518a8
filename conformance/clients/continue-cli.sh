# Continue's own agent, cn: the file that connect writes, two turns of one session, a command that it runs.
set -e
export CONTINUE_GLOBAL_DIR=$HOME/continue
"$CLAUDEMAX" connect continue --url "$1" --yes
cd "$(mktemp -d)"
ask() { cn -p --auto --config "$CONTINUE_GLOBAL_DIR/config.yaml" "$@" </dev/null; }
test "$(ask Hello)" = 'You said: Hello'
test "$(ask --resume Again)" = 'You said: Again'
ask --resume '[[call Bash {"command": "touch here"}]]'
test -e here
