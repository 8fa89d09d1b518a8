"""claudemax inside a Twisted application of your own: its API below /claude of your site.

    CLAUDEMAX_DEMO=1 twistd -ny examples/embedding.tac
    curl http://localhost:8080/claude/v1/models

The site must make its requests of InMemoryRequest: by itself twisted.web puts bodies of 100 kB and
more into temporary files, and the API refuses those. The other limits of the daemon's own site
(connections, slow clients, all bodies together, draining) are not those of yours: they are in
`claude.site`, which serves the API alone. Keys and the checks of Host and Origin come with the
resource, and so does the log.
"""

import os

from twisted.application import service, strports
from twisted.internet import reactor
from twisted.web.resource import Resource
from twisted.web.server import Site
from twisted.web.static import Data

from claudeproxy.options import load
from claudeproxy.service import Claudemax
from claudeproxy.web.requests import InMemoryRequest

application = service.Application("embedding")
services = service.MultiService()
services.setServiceParent(application)

# Settings as the daemon has them, from the environment and its file; or Settings(demo=True).
claude = Claudemax(reactor, load({}, os.environ), dict(os.environ))
claude.setServiceParent(services)

root = Resource()
root.putChild(b"", Data(b"A page of our own.\n", "text/plain"))
root.putChild(b"claude", claude.resource)

endpoint = os.environ.get("LISTEN", "tcp:8080:interface=127.0.0.1")
site = Site(root, requestFactory=InMemoryRequest)
strports.service(endpoint, site, reactor).setServiceParent(services)
