"""A bot that answers on IRC: in its channel when it is addressed, and whoever writes to it alone.

    python examples/irc_bot.py tls:irc.libera.chat:6697 claudebot '#my-channel'

It asks the daemon at CLAUDEMAX_URL, and has a conversation in each place, one question at a time.
Whoever writes to it uses your plan: in CLAUDEMAX_KEY, give it a key with a quota of its own.
"""

import os
import sys

from twisted.application.internet import ClientService
from twisted.internet.defer import CancelledError, Deferred, ensureDeferred
from twisted.internet.endpoints import clientFromString
from twisted.internet.protocol import Factory
from twisted.internet.task import react
from twisted.python import log
from twisted.words.protocols.irc import IRCClient

from claudeproxy.client import ClaudeError, Conversation, over_http

SYSTEM = "You are a bot on IRC. Answer in one to three short lines of plain text, without markup."
LINES = 5  # of an answer, however long it is
PLACES = 100  # whose conversations are remembered


class Bot(IRCClient):
    lineRate = 1.0  # seconds between two lines: servers throw out who is faster
    password = os.environ.get("IRC_PASSWORD")

    def __init__(self, claude, nickname, channel):
        self.claude, self.nickname, self.channel = claude, nickname, channel
        self.talks, self.asking = {}, {}  # by channel or nick

    def signedOn(self):
        self.join(self.channel)

    def privmsg(self, user, channel, message):
        nick, private = user.partition("!")[0], channel == self.nickname
        addressed, _, said = message.partition(":")
        if not private and (addressed.strip() != self.nickname or not said.strip()):
            return
        place, said = (nick, message) if private else (channel, said)
        if place in self.asking:
            self.msg(place, f"{nick}: one question at a time, please.")
        else:
            asking = self.asking[place] = ensureDeferred(self.answer(place, nick, said))
            asking.addErrback(lambda why: why.check(CancelledError) or log.err(why))
            asking.addBoth(lambda _: self.asking.pop(place) and None)

    async def answer(self, place, nick, said):
        if place not in self.talks and len(self.talks) >= PLACES:
            del self.talks[next(iter(self.talks))]  # the oldest
        talk = self.talks.setdefault(place, Conversation(self.claude, system=SYSTEM, model="haiku"))
        try:
            text = (await talk.ask(f"{nick}: {said.strip()}")).text
        except ClaudeError as error:
            log.msg(f"no answer in {place}: {error}")
            text = f"{nick}: I cannot answer now ({error.kind.value})."
        for line in [line for line in text.splitlines() if line.strip()][:LINES]:
            self.msg(place, line)

    def connectionLost(self, reason):
        super().connectionLost(reason)
        for asking in list(self.asking.values()):
            asking.cancel()  # nobody is there to read it: the turn ends


def main(reactor, server, nickname, channel):
    log.startLogging(sys.stderr)
    url = os.environ.get("CLAUDEMAX_URL", "http://127.0.0.1:3456")
    claude = over_http(url, os.environ.get("CLAUDEMAX_KEY"), "irc-bot")
    bots = Factory.forProtocol(lambda: Bot(claude, nickname, channel))
    ClientService(clientFromString(reactor, server), bots).startService()
    return Deferred()  # until Ctrl-C; it connects anew by itself


if __name__ == "__main__":
    react(main, sys.argv[1:])
