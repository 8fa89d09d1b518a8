# aider: two messages in one chat.
set -e
cd "$(mktemp -d)"
export OPENAI_API_BASE=$1/v1 OPENAI_API_KEY=none
aider="aider --model openai/sonnet --no-git --yes-always --no-check-update --no-show-model-warnings
       --analytics-disable --no-detect-urls --no-gitignore --no-auto-lint"
$aider --message 'Hello' | grep 'You said: Hello'
$aider --restore-chat-history --message 'And again' | grep 'You said: And again'
