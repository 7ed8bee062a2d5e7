//! Builds everything from settings: model, engine, steering, router. The only place that knows all rooms.
