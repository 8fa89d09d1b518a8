# opencode: the file that connect writes, two turns of one session.
set -e
export XDG_CONFIG_HOME=$HOME/opencode XDG_DATA_HOME=$HOME/opencode/data
"$CLAUDEMAX" connect opencode --url "$1" --yes
cd "$(mktemp -d)"
opencode models claudemax | grep -x claudemax/haiku
opencode run Hello </dev/null | grep 'You said: Hello'
opencode run --continue Again </dev/null | grep 'You said: Again'
