"""Where things are kept that outlive a request: tables, and the databases below them."""
