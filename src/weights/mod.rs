//! Where weights come from and our own readers of weight files.
