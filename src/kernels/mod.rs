//! Compute kernels on slices. See each file.
