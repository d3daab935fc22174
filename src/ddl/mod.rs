//! Execution of our own statements: checks against the catalog, then one durable change, then the running server follows.
