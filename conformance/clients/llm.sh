# llm: two turns of one conversation, streamed, through extra-openai-models.yaml.
set -e
export LLM_USER_PATH=$HOME/llm
"$CLAUDEMAX" connect llm --url "$1" --yes
test "$(llm -m claudemax/sonnet Hello)" = 'You said: Hello'
test "$(llm -c 'And again')" = 'You said: And again'
llm -m claudemax/sonnet --schema 'x int, y int' 'A point' | python -c 'import json, sys; json.load(sys.stdin)["x"]'
llm -m claudemax/sonnet -T llm_version '[[call llm_version {}]]' | grep 'The tool said: [0-9]'
