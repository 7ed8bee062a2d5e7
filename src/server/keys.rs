//! Who may call: API keys, compared in constant time, and a rate on failed ones.

use super::error::{ApiError, ErrorCode};
use crate::digest::Digest;
use crate::limits;
use axum::http::{HeaderMap, header};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use subtle::ConstantTimeEq;

/// The operator's keys as digests; none: everybody may call.
pub struct Keys {
    digests: Vec<Digest>,
    /// Failed tries per address: start of the current minute and their number.
    failures: Mutex<BTreeMap<IpAddr, (Instant, u32)>>,
}

const WINDOW: Duration = Duration::from_secs(60);

impl Keys {
    pub fn new(keys: &[String]) -> Keys {
        let digests = keys.iter().map(|key| Digest::of(key.as_bytes())).collect();
        Keys { digests, failures: Mutex::new(BTreeMap::new()) }
    }

    /// Good keys pass whatever else came from their address.
    pub fn check(&self, headers: &HeaderMap, peer: IpAddr) -> Result<(), ApiError> {
        if self.digests.is_empty() || presented(headers).is_some_and(|key| self.knows(key)) {
            return Ok(());
        }
        if self.count_failure(peer, Instant::now()) {
            let message = "no valid API key; send it as `Authorization: Bearer KEY` or `x-api-key: KEY`";
            return Err(ApiError::new(ErrorCode::InvalidApiKey, message));
        }
        let message = "too many requests with a wrong API key from this address; wait a minute";
        Err(ApiError::new(ErrorCode::TooManyFailedKeys, message).retry_after(WINDOW.as_secs()))
    }

    /// Every known key is compared, in time that depends on none of them.
    fn knows(&self, key: &[u8]) -> bool {
        let given = Digest::of(key);
        let found =
            self.digests.iter().fold(subtle::Choice::from(0), |found, known| found | known.0.ct_eq(&given.0));
        found.into()
    }

    /// `false` when this address has failed too often in the current minute.
    fn count_failure(&self, peer: IpAddr, now: Instant) -> bool {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        if failures.len() >= limits::FAILED_KEY_ADDRESSES_MAX && !failures.contains_key(&peer) {
            failures.retain(|_, (start, _)| now.duration_since(*start) < WINDOW);
            if failures.len() >= limits::FAILED_KEY_ADDRESSES_MAX {
                return false;
            }
        }
        let (start, count) = failures.entry(peer).or_insert((now, 0));
        if now.duration_since(*start) >= WINDOW {
            (*start, *count) = (now, 0);
        }
        *count = count.saturating_add(1);
        *count <= limits::FAILED_KEYS_PER_MINUTE_MAX
    }
}

/// The one key that a request presents; two are none.
fn presented(headers: &HeaderMap) -> Option<&[u8]> {
    let mut bearer = headers.get_all(header::AUTHORIZATION).iter();
    if let Some(first) = bearer.next() {
        if bearer.next().is_some() {
            return None;
        }
        let (scheme, key) = first.to_str().ok()?.split_once(' ')?;
        return scheme.eq_ignore_ascii_case("bearer").then(|| key.trim().as_bytes());
    }
    let mut direct = headers.get_all("x-api-key").iter();
    let first = direct.next()?;
    direct.next().is_none().then(|| first.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::{HeaderName, HeaderValue};

    fn headers(list: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in list {
            let name = HeaderName::try_from(*name).expect("a header name");
            headers.append(name, HeaderValue::from_str(value).expect("a header value"));
        }
        headers
    }

    fn peer(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    #[test]
    fn which_headers_pass() {
        let table: &[(&[(&str, &str)], bool)] = &[
            (&[("authorization", "Bearer secret")], true),
            (&[("authorization", "bearer secret")], true),
            (&[("x-api-key", "secret")], true),
            (&[("x-api-key", "secret"), ("authorization", "Bearer secret")], true),
            (&[], false),
            (&[("authorization", "Bearer ")], false),
            (&[("authorization", "Bearer secrets")], false),
            (&[("authorization", "Basic secret")], false),
            (&[("authorization", "Bearer secret"), ("authorization", "Bearer secret")], false),
        ];
        for (list, passes) in table {
            let keys = Keys::new(&["other".into(), "secret".into()]);
            assert_eq!(keys.check(&headers(list), peer(1)).is_ok(), *passes, "{list:?}");
            assert!(Keys::new(&[]).check(&headers(list), peer(1)).is_ok(), "no keys: {list:?}");
        }
    }

    #[test]
    fn failed_keys_have_a_rate_and_good_ones_have_not() {
        let keys = Keys::new(&["secret".into()]);
        let wrong = headers(&[("x-api-key", "no")]);
        let codes: Vec<_> = (0..12)
            .map(|_| keys.check(&wrong, peer(1)).map_err(|error| error.code).expect_err("wrong"))
            .collect();
        assert_eq!(codes[9], ErrorCode::InvalidApiKey);
        assert_eq!(codes[10], ErrorCode::TooManyFailedKeys);
        assert_eq!(keys.check(&wrong, peer(2)).expect_err("wrong").code, ErrorCode::InvalidApiKey);
        assert!(keys.check(&headers(&[("x-api-key", "secret")]), peer(1)).is_ok());
    }

    #[test]
    fn the_rate_ends_with_its_minute() {
        let keys = Keys::new(&["secret".into()]);
        let start = Instant::now();
        assert!((0..10).all(|_| keys.count_failure(peer(1), start)));
        assert!(!keys.count_failure(peer(1), start));
        assert!(keys.count_failure(peer(1), start + WINDOW));
    }
}
