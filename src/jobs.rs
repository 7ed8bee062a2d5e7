//! Long work under one roof: queue, progress, cancel, and "interrupted" after a restart. Runs closures; knows no domain.
