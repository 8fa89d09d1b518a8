# aider: two messages in one chat.
set -e
cd "$(mktemp -d)"
"$CLAUDEMAX" connect aider --url "$1" --yes
aider="aider --no-git --yes-always --no-check-update
       --analytics-disable --no-detect-urls --no-gitignore --no-auto-lint"
$aider --message 'Hello' | grep 'You said: Hello'
$aider --restore-chat-history --message 'And again' | grep 'You said: And again'
