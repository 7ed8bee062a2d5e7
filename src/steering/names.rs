//! Names of vectors: which are allowed, and which known ones are near to an unknown one.

pub use crate::names::{NAME_BYTES_MAX, edit_distance, is_name_byte, is_name_start, is_valid_name, nearest};
