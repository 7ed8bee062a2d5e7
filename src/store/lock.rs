//! Who may write in a data folder: one process at a time, by a lock that ends with the process.

use super::error::StoreError;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// The lock of a data folder, held until it is dropped. The file says who holds it: `pid`, then the address served.
#[derive(Debug)]
pub struct FolderLock {
    file: File,
}

impl FolderLock {
    /// Takes the lock or says who has it.
    pub fn take(folder: &Path) -> Result<FolderLock, StoreError> {
        let path = folder.join("lock");
        let open =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
        let mut file = open.map_err(|error| StoreError::io("open", &path, &error))?;
        match file.try_lock() {
            Ok(()) => {
                let mut lock = FolderLock { file };
                lock.write(None).map_err(|error| StoreError::io("write", &path, &error))?;
                Ok(lock)
            }
            Err(TryLockError::WouldBlock) => {
                let mut text = String::new();
                // What cannot be read is not known.
                let _ = (&mut file).take(1024).read_to_string(&mut text);
                let mut lines = text.lines();
                let holder = match lines.next().filter(|pid| !pid.is_empty()) {
                    Some(pid) => format!("process {pid}"),
                    None => "another process".to_owned(),
                };
                let url = lines.next().map(str::to_owned);
                Err(StoreError::InUse { folder: folder.display().to_string(), holder, url })
            }
            Err(TryLockError::Error(error)) => Err(StoreError::io("lock", &path, &error)),
        }
    }

    /// Says where this process serves HTTP.
    pub fn announce(&mut self, url: &str) {
        if let Err(error) = self.write(Some(url)) {
            tracing::debug!(%error, "the lock file does not name the address");
        }
    }

    fn write(&mut self, url: Option<&str>) -> std::io::Result<()> {
        let text =
            format!("{}\n{}", std::process::id(), url.map_or_else(String::new, |url| format!("{url}\n")));
        self.file.set_len(0)?;
        self.file.seek(SeekFrom::Start(0))?;
        self.file.write_all(text.as_bytes())
    }
}
