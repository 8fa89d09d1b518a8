# llm: two turns of one conversation, streamed, through extra-openai-models.yaml.
set -e
export LLM_USER_PATH=$HOME/llm
mkdir -p "$LLM_USER_PATH"
cat > "$LLM_USER_PATH/extra-openai-models.yaml" <<END
- model_id: claudemax
  model_name: sonnet
  api_base: $1/v1
  supports_tools: true
  supports_schema: true
END
export OPENAI_API_KEY=none
test "$(llm -m claudemax Hello)" = 'You said: Hello'
test "$(llm -c 'And again')" = 'You said: And again'
llm -m claudemax --schema 'x int, y int' 'A point' | python -c 'import json, sys; json.load(sys.stdin)["x"]'
llm -m claudemax -T llm_version '[[call llm_version {}]]' | grep 'The tool said: [0-9]'
