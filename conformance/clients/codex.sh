# Codex CLI: two turns of one session, and a command that it runs.
set -e
export CODEX_HOME=$HOME/codex
mkdir -p "$CODEX_HOME"
cat > "$CODEX_HOME/config.toml" <<END
model = "sonnet"
model_provider = "claudemax"

[model_providers.claudemax]
name = "claudemax"
base_url = "$1/v1"
wire_api = "responses"
END
cd "$(mktemp -d)"
ask() { codex exec --skip-git-repo-check --dangerously-bypass-approvals-and-sandbox "$@" </dev/null | tail -n 1; }
test "$(ask Hello)" = Hello
test "$(ask resume --last Again)" = 'You said: Again'
ask resume --last '[[call exec_command {"cmd": "touch here"}]]'
test -e here
