//! tidemill-ingest
