# Claude Code itself: two turns of one session, and a command that it runs.
set -e
export ANTHROPIC_BASE_URL=$1 ANTHROPIC_API_KEY=x
export CLAUDE_CONFIG_DIR=$HOME/claude CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC=1
cd "$(mktemp -d)"
ask() { "$CLAUDE" -p "$@" --model sonnet --allowedTools Bash </dev/null; }
test "$(ask Hello)" = 'You said: Hello'
test "$(ask --continue Again)" = 'You said: Again'
test "$(ask --continue '[[call Bash {"command": "touch here; echo done"}]]')" = 'The tool said: done'
test -e here
