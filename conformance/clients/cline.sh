# Cline's CLI: two tasks, the second with a command that it runs. (Its sessions go on in its TUI only.)
set -e
trap 'cline hub stop' EXIT  # it leaves a process that would outlive this
cline auth openai --apikey none --baseurl "$1/v1" --modelid claude-sonnet-4
cd "$(mktemp -d)"
ask() { cline --json -P openai-compatible "$1" </dev/null 2>/dev/null | tail -n 1; }
ask 'Hello you' | grep '"text":"You said: Hello you"'
ask '[[call run_commands {"commands": ["touch here"]}]]' | grep 'The tool said'
test -e here
