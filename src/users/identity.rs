//! Names of people: what a user id may look like, and the digest under which the engine knows its owner.

use super::error::UsersError;
use crate::digest::{Digest, Digester};
use crate::store::user_owner;
use std::fmt;

/// Longest id: a UUID, a sha256 in hex, an e-mail address or a login of an identity provider fit.
const ID_BYTES_MAX: usize = 128;

/// A checked user id: `[A-Za-z0-9][A-Za-z0-9._@:|+-]{0,127}`. Wider than names of vectors and personas, because clients
/// send what their accounts are called; so it never becomes a part of a file's path.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UserId(String);

impl UserId {
    pub fn parse(text: &str, param: &str) -> Result<UserId, UsersError> {
        let given = || text.chars().take(64).collect::<String>();
        if UserId::is_valid(text) {
            Ok(UserId(text.to_owned()))
        } else {
            Err(UsersError::BadId { param: param.to_owned(), given: given() })
        }
    }

    fn is_valid(text: &str) -> bool {
        text.len() <= ID_BYTES_MAX
            && text.starts_with(|first: char| first.is_ascii_alphanumeric())
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._@:|+-".contains(&byte))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// How rows of the store name this owner.
    pub fn owner(&self) -> String {
        user_owner(&self.0)
    }

    /// How the engine knows this owner in one life (`super::lives`): what was resolved for a deleted user cannot pass for
    /// the one of the same name that came after.
    pub(super) fn owner_digest(&self, life: u64) -> Digest {
        let mut digester = Digester::new("demeanor.owner/1");
        digester.part(self.0.as_bytes()).part(&life.to_le_bytes());
        digester.finish()
    }
}

impl fmt::Display for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids() {
        let long = "a".repeat(129);
        let table = [
            ("u1", true),
            ("ana@example.org", true),
            ("auth0|62a7", true),
            ("0f8fad5b-d9cb-469f-a165-70867728950e", true),
            ("A.b_c:d+e", true),
            (&long[..128], true),
            (&long[..], false),
            ("", false),
            (".", false),
            ("..", false),
            ("-x", false),
            ("a/b", false),
            ("a\\b", false),
            ("a b", false),
            ("a\0", false),
            ("a%2f", false),
            ("é", false),
            ("a\n", false),
        ];
        for (text, valid) in table {
            assert_eq!(UserId::parse(text, "id").is_ok(), valid, "{text:?}");
        }
    }

    #[test]
    fn owners_differ_by_name_and_life() {
        let id = |text| UserId::parse(text, "id").unwrap();
        assert_eq!(id("a").owner_digest(0), id("a").owner_digest(0));
        assert_ne!(id("a").owner_digest(0), id("a").owner_digest(1));
        assert_ne!(id("a").owner_digest(0), id("b").owner_digest(0));
        assert_ne!(id("a").owner_digest(0), Digest::default());
    }
}
