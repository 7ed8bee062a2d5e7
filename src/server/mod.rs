//! HTTP only: accept loop, routes, errors, SSE, metrics.
