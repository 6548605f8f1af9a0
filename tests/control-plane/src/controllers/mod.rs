//! Controllers: event-driven loops over the in-process client.
