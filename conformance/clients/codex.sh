# Codex CLI: two turns of one session, over HTTP and over a WebSocket, a command that it runs, a patch
# (a custom tool) that it applies.
set -e
export CODEX_HOME=$HOME/codex
"$CLAUDEMAX" connect codex --url "$1" --yes
cd "$(mktemp -d)"
ask() { codex exec --skip-git-repo-check --dangerously-bypass-approvals-and-sandbox "$@" </dev/null | tail -n 1; }
test "$(ask Hello)" = Hello
test "$(ask resume --last Again)" = 'You said: Again'
over_a_socket() { ask -c model_providers.claudemax.supports_websockets=true "$@"; }
test "$(over_a_socket Hello)" = Hello
test "$(over_a_socket resume --last Again)" = 'You said: Again'
ask resume --last '[[call exec_command {"cmd": "touch here"}]]'
test -e here
# It offers that tool to models of OpenAI's only.
ask -m gpt-5.5 '[[call apply_patch {"input": "*** Begin Patch\n*** Add File: a\n+\u00e9\n*** End Patch"}]]'
test "$(cat a)" = é
