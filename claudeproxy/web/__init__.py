"""HTTP: the site with its limits, the gate, the routes, and the answers that are streamed."""
