//! HTTP: the console, the API, metrics and health.
