//! Folders as the families have them, and hostile ones.
