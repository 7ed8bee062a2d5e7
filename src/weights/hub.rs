//! Files of a model hub over HTTP: what a file is called and how large it is, and its content, continued where it broke
//! off.
//!
//! Names that the hub sends (etag, commit) become parts of paths only after `is_component`; what is written is checked by
//! its sha256 before it gets its final name. The access token goes to the hub's own host only, never along a redirect.

use super::cache::Place;
use super::catalog::HubSource;
use super::choice::Listed;
use super::error::{SourceFailure, WeightsError, io};
use super::names::is_component;
use super::pull::Progress;
use crate::digest::Digest;
use crate::limits::{
    DOWNLOAD_BYTES_MAX, DOWNLOAD_STALL_SECONDS_MAX, HUB_LISTING_BYTES_MAX, REACH_SECONDS_MAX,
    REPOSITORY_FILES_MAX,
};
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::path::Path;
use std::time::Duration;
use ureq::http::Response;
use ureq::{Agent, Body, Proxy};

/// Redirects that are followed; the hub itself needs one.
const REDIRECTS_MAX: u32 = 5;
/// Continuations of a download that breaks off, as long as each brings something.
const CONTINUATIONS_MAX: u32 = 5;

/// A listing must be there within so many times [`Hub::reach`]: a hub that sends it byte by byte holds nobody up.
const LISTING_REACHES_MAX: u32 = 20;

/// The hub as configured.
#[derive(Clone, Debug)]
pub struct Hub {
    /// Scheme and host without a slash at the end.
    pub endpoint: String,
    pub token: Option<String>,
    /// Nothing is asked.
    pub offline: bool,
    /// For the connection and for the first answer.
    pub reach: Duration,
}

/// What the hub says of a file.
pub(super) struct RemoteFile {
    /// Name of the blob.
    pub etag: String,
    pub commit: String,
    pub bytes: u64,
}

impl RemoteFile {
    /// The etag of a large file is its sha256; of a small one it is something else.
    pub(super) fn sha256(&self) -> Option<Digest> {
        Digest::parse(&self.etag)
    }
}

#[derive(serde::Deserialize)]
struct Listing {
    siblings: Vec<Sibling>,
}

#[derive(serde::Deserialize)]
struct Sibling {
    rfilename: String,
    /// Of large files.
    lfs: Option<Lfs>,
}

#[derive(serde::Deserialize)]
struct Lfs {
    sha256: String,
}

impl Hub {
    /// `HF_ENDPOINT`, `HF_TOKEN` (or the file `HF_TOKEN_PATH`, or `token` beside the cache) and `HF_HUB_OFFLINE`.
    pub fn from_variables(variable: impl Fn(&str) -> Option<OsString>) -> Hub {
        let text = |name: &str| {
            let value = variable(name)?.into_string().ok()?;
            let value = value.trim();
            (!value.is_empty()).then(|| value.to_owned())
        };
        let endpoint = text("HF_ENDPOINT").unwrap_or_else(|| "https://huggingface.co".to_owned());
        let token_file = text("HF_TOKEN_PATH").or_else(|| Some(text("HF_HOME")? + "/token"));
        let token_file = token_file.or_else(|| Some(text("HOME")? + "/.cache/huggingface/token"));
        let token_in_file = || Some(fs::read_to_string(token_file?).ok()?.trim().to_owned());
        let offline = text("HF_HUB_OFFLINE")
            .is_some_and(|value| ["1", "on", "yes", "true"].contains(&value.to_lowercase().as_str()));
        Hub {
            endpoint: endpoint.trim_end_matches('/').to_owned(),
            token: text("HF_TOKEN").or_else(token_in_file).filter(|token| !token.is_empty()),
            offline,
            reach: Duration::from_secs(REACH_SECONDS_MAX),
        }
    }

    /// Asks for a file's name, commit and size. Redirects within the hub are followed, the one to its storage is not: the
    /// headers in question are the hub's.
    pub(super) fn describe(&self, place: &Place<'_>) -> Result<RemoteFile, SourceFailure> {
        self.online()?;
        let agent = self.agent(0);
        let mut url = self.file_url(place);
        for _ in 0..=REDIRECTS_MAX {
            let response = self.sent(agent.head(&url).header("Accept-Encoding", "identity"))?;
            match header(&response, "location") {
                Some(location) if response.status().is_redirection() && location.starts_with('/') => {
                    url = format!("{}{location}", self.endpoint);
                }
                _ => return self.read_description(&response),
            }
        }
        Err(self.unavailable("too many redirects"))
    }

    /// Brings `part` to the size of the file, going on from what it has.
    pub(super) fn download(
        &self,
        place: &Place<'_>,
        remote: &RemoteFile,
        part: &Path,
        progress: &mut dyn Progress,
    ) -> Result<(), SourceFailure> {
        let mut have = fs::metadata(part).map_or(0, |data| data.len());
        if have > remote.bytes {
            fs::remove_file(part).map_err(io("remove", part))?;
            have = 0;
        }
        progress.total(remote.bytes);
        progress.advance(have);
        for _ in 0..=CONTINUATIONS_MAX {
            if have == remote.bytes {
                return Ok(());
            }
            let now = self.download_more(place, remote, part, have, progress)?;
            if now == have {
                break;
            }
            have = now;
        }
        match have == remote.bytes {
            true => Ok(()),
            false => Err(self.unavailable(&format!(
                "broke off after {have} of {} bytes; pull again to continue",
                remote.bytes
            ))),
        }
    }

    /// The files of a repository, in order of their paths.
    pub(super) fn files(&self, repository: &str, revision: &str) -> Result<Vec<Listed>, SourceFailure> {
        self.online()?;
        let url = format!("{}/api/models/{repository}/revision/{revision}?blobs=true", self.endpoint);
        let request = self.agent(REDIRECTS_MAX).get(&url);
        let request = request.config().timeout_global(Some(self.reach * LISTING_REACHES_MAX)).build();
        let response = self.sent(request)?;
        match response.status().as_u16() {
            // The hub hides private repositories as if they were not there.
            401 | 404 => {
                let hint = "or no access to it; set `HF_TOKEN` where it is private or gated";
                return Err(self.unavailable(&format!("has no repository `{repository}` {hint}")));
            }
            _ => self.check_status(&response)?,
        }
        let reader = response.into_body().into_reader().take(HUB_LISTING_BYTES_MAX);
        let listing: Listing = serde_json::from_reader(std::io::BufReader::new(reader))
            .map_err(|error| self.unavailable(&format!("sent an unreadable listing: {error}")))?;
        if listing.siblings.len() > REPOSITORY_FILES_MAX {
            let given = listing.siblings.len();
            return Err(self.unavailable(&format!(
                "lists {given} files for `{repository}`; at most {REPOSITORY_FILES_MAX} are read"
            )));
        }
        let listed = |file: Sibling| Listed {
            sha256: file.lfs.and_then(|lfs| Digest::parse(&lfs.sha256)),
            path: file.rfilename,
        };
        let mut files: Vec<Listed> = listing.siblings.into_iter().map(listed).collect();
        files.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(files)
    }

    /// One request from byte `have` on; returns how many bytes `part` has then. A connection that breaks is no failure.
    fn download_more(
        &self,
        place: &Place<'_>,
        remote: &RemoteFile,
        part: &Path,
        have: u64,
        progress: &mut dyn Progress,
    ) -> Result<u64, SourceFailure> {
        let request =
            self.agent(REDIRECTS_MAX).get(self.file_url(place)).header("Accept-Encoding", "identity");
        let request = if have > 0 { request.header("Range", format!("bytes={have}-")) } else { request };
        let response = self.sent(request)?;
        self.check_status(&response)?;
        let continues = response.status().as_u16() == 206
            && header(&response, "content-range")
                .is_some_and(|range| range.starts_with(&format!("bytes {have}-")));
        if have > 0 && !continues {
            progress.note("the hub cannot continue the download; starting again");
            progress.total(remote.bytes);
        }
        let start = if continues { have } else { 0 };
        let mut options = OpenOptions::new();
        let mut file = options
            .create(true)
            .write(true)
            .truncate(start == 0)
            .append(start > 0)
            .open(part)
            .map_err(io("write", part))?;
        let written = self.copy(response, &mut file, part, remote.bytes - start, progress)?;
        file.sync_all().map_err(io("write", part))?;
        Ok(start + written)
    }

    /// Copies at most `left` bytes; more is a refusal, a broken connection the end.
    fn copy(
        &self,
        response: Response<Body>,
        file: &mut File,
        part: &Path,
        left: u64,
        progress: &mut dyn Progress,
    ) -> Result<u64, SourceFailure> {
        let mut reader = response.into_body().into_reader();
        let mut buffer = vec![0; 128 << 10];
        let mut written = 0u64;
        while let Ok(count @ 1..) = reader.read(&mut buffer) {
            if written + count as u64 > left {
                fs::remove_file(part).map_err(io("remove", part))?;
                return Err(self.unavailable("sent more bytes than it had announced"));
            }
            file.write_all(buffer.get(..count).unwrap_or_default()).map_err(io("write", part))?;
            written += count as u64;
            progress.advance(count as u64);
        }
        Ok(written)
    }

    fn read_description(&self, response: &Response<Body>) -> Result<RemoteFile, SourceFailure> {
        if !response.status().is_redirection() {
            self.check_status(response)?;
        }
        let etag = header(response, "x-linked-etag").or_else(|| header(response, "etag"));
        let etag = etag.ok_or_else(|| self.unavailable("sent no etag"))?;
        let etag = etag.trim_start_matches("W/").trim_matches('"');
        let commit =
            header(response, "x-repo-commit").ok_or_else(|| self.unavailable("sent no x-repo-commit"))?;
        for (header, value) in [("etag", etag), ("x-repo-commit", commit)] {
            if !is_component(value) {
                let value = value.escape_default().take(80).collect();
                return Err(WeightsError::HostileName { origin: self.name(), header, value }.into());
            }
        }
        let size = header(response, "x-linked-size").or_else(|| header(response, "content-length"));
        match size.and_then(|size| size.parse().ok()) {
            Some(bytes @ 1..=DOWNLOAD_BYTES_MAX) => {
                Ok(RemoteFile { etag: etag.to_owned(), commit: commit.to_owned(), bytes })
            }
            _ => Err(self.unavailable("sent no usable size")),
        }
    }

    /// For messages.
    pub(super) fn name(&self) -> String {
        format!("hub {}", self.endpoint)
    }

    /// A file of this hub, for messages.
    pub(super) fn origin(&self, source: &HubSource) -> String {
        format!("{} for {}/{}", self.name(), source.repository, source.file)
    }

    fn online(&self) -> Result<(), SourceFailure> {
        if self.offline { Err(self.unavailable("`HF_HUB_OFFLINE` is set")) } else { Ok(()) }
    }

    fn file_url(&self, place: &Place<'_>) -> String {
        format!("{}/{}/resolve/{}/{}", self.endpoint, place.repository, place.revision, place.file)
    }

    /// A proxy is what the environment says, but a hub on this machine is asked directly.
    fn agent(&self, redirects: u32) -> Agent {
        let local =
            ["://127.0.0.1", "://localhost", "://[::1]"].iter().any(|host| self.endpoint.contains(host));
        Agent::config_builder()
            .proxy(if local { None } else { Proxy::try_from_env() })
            .http_status_as_error(false)
            .max_redirects(redirects)
            .max_redirects_will_error(false)
            .https_only(self.endpoint.starts_with("https:"))
            .timeout_resolve(Some(self.reach))
            .timeout_connect(Some(self.reach))
            .timeout_recv_response(Some(self.reach * 3))
            .timeout_per_read(Some(Duration::from_secs(DOWNLOAD_STALL_SECONDS_MAX)))
            .user_agent(concat!("demeanor/", env!("CARGO_PKG_VERSION")))
            .build()
            .into()
    }

    fn sent(
        &self,
        request: ureq::RequestBuilder<ureq::typestate::WithoutBody>,
    ) -> Result<Response<Body>, SourceFailure> {
        let request = match &self.token {
            Some(token) => request.header("Authorization", format!("Bearer {token}")),
            None => request,
        };
        request.call().map_err(|error| self.unavailable(&format!("cannot be reached: {error}")))
    }

    fn check_status(&self, response: &Response<Body>) -> Result<(), SourceFailure> {
        match response.status().as_u16() {
            200..300 => Ok(()),
            401 | 403 => Err(self.unavailable("needs a token with access; set `HF_TOKEN`")),
            404 => Err(self.unavailable("has no such file")),
            status => Err(self.unavailable(&format!("answered {status}"))),
        }
    }

    fn unavailable(&self, reason: &str) -> SourceFailure {
        SourceFailure::Unavailable(format!("{} {reason}", self.name()))
    }
}

fn header<'a>(response: &'a Response<Body>, name: &str) -> Option<&'a str> {
    response.headers().get(name)?.to_str().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_follow_the_environment() {
        let hub = Hub::from_variables(|_| None);
        assert_eq!((hub.endpoint.as_str(), hub.token, hub.offline), ("https://huggingface.co", None, false));
        let set =
            [("HF_ENDPOINT", "http://mirror:1/"), ("HF_TOKEN", " secret\n"), ("HF_HUB_OFFLINE", "True")];
        let hub = Hub::from_variables(|name| {
            set.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into())
        });
        assert_eq!(
            (hub.endpoint.as_str(), hub.token.as_deref(), hub.offline),
            ("http://mirror:1", Some("secret"), true)
        );
    }
}
