"""A site that answers questions, and shows each answer while it is being written.

    CLAUDEMAX_DEMO=1 twistd -ny examples/answering_site.py
    xdg-open http://localhost:8080

The daemon runs within the site and is not served itself: there is no HTTP and no socket between the
two. Settings are the daemon's own, from CLAUDEMAX_... and its file. A reader who leaves, by closing
the page or pressing stop, ends the turn.
"""

import os
from html import escape

from klein import Klein
from twisted.application import service, strports
from twisted.internet import reactor
from twisted.web.server import Site

from claudeproxy.client import ClaudeError, Text, in_process
from claudeproxy.options import load
from claudeproxy.service import Claudemax

SYSTEM = "Answer questions of visitors of a website briefly, in plain text without markup."
LONGEST = 4000  # characters of a question
HEAD = """<!doctype html><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Ask</title><style>body{max-width:40em;margin:2em auto;padding:0 1em;font:1em/1.5 sans-serif}
textarea{width:100%;box-sizing:border-box}.said{white-space:pre-wrap}</style>"""
FORM = """<form method="post" action="answer"><label>Your question
<textarea name="question" rows="4" required autofocus></textarea></label>
<button>Ask</button></form>"""


class AnsweringSite:
    app = Klein()

    def __init__(self, claude):
        self.claude = claude

    @app.route("/")
    def form(self, request):
        request.setHeader("content-type", "text/html; charset=utf-8")
        return HEAD + FORM

    @app.route("/answer", methods=["POST"])
    async def answer(self, request):
        question = request.args.get(b"question", [b""])[0].decode("utf-8", "replace").strip()
        if request.getHeader("sec-fetch-site") not in (None, "same-origin"):
            request.setResponseCode(403)
            return b"Pages of other sites may not ask here.\n"
        if not 0 < len(question) <= LONGEST:
            request.setResponseCode(400)
            return b"A question has 1 to %d characters.\n" % LONGEST
        request.setHeader("content-type", "text/html; charset=utf-8")
        request.write(f'{HEAD}<h1>{escape(question)}</h1><div class="said">'.encode())
        try:
            async for piece in self.claude.stream(question, system=SYSTEM, max_tokens=4000):
                if isinstance(piece, Text):
                    request.write(escape(piece.text).encode())
        except ClaudeError as error:
            request.write(f"</div><p><em>{escape(str(error))}</em>".encode())
        return f"</div>{FORM}"


application = service.Application("answering site")
services = service.MultiService()
services.setServiceParent(application)

daemon = Claudemax(reactor, load({}, os.environ), dict(os.environ))
daemon.setServiceParent(services)

site = Site(AnsweringSite(in_process(daemon, "answering-site")).app.resource())
endpoint = os.environ.get("LISTEN", "tcp:8080:interface=127.0.0.1")
strports.service(endpoint, site, reactor).setServiceParent(services)
