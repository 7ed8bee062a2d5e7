//! The data files that ship inside the binary: everything under `models/`, collected by the build script.

/// `(path under models/, content)` of every shipped file, sorted by path.
pub const FILES: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/shipped.rs"));

/// `(path under models/, content)` of every shipped file of tensors (`projectors/NAME.safetensors`), sorted by path.
pub const BINARIES: &[(&str, &[u8])] = include!(concat!(env!("OUT_DIR"), "/shipped_binaries.rs"));

/// Content of one shipped file.
pub fn file(path: &str) -> Option<&'static str> {
    FILES.iter().find(|(name, _)| *name == path).map(|(_, content)| *content)
}

/// Files of one folder with their stem (`traits` gives `("warm", ...)` for `traits/warm.json`).
pub fn folder(folder: &str) -> impl Iterator<Item = (&'static str, &'static str)> {
    FILES.iter().filter_map(move |(path, content)| {
        let name = path.strip_prefix(folder)?.strip_prefix('/')?;
        let stem = name.rsplit_once('.').map_or(name, |(stem, _)| stem);
        (!name.contains('/')).then_some((stem, *content))
    })
}
