//! One database and its blobs: rows of bytes and JSON, no domain types. The only room that knows SQL.
