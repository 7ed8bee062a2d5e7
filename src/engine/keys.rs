//! Keys of the prefix cache: what makes the cached keys and values of a row what they are (bitwise rule 8).

use crate::digest::{Digest, Digester};
use crate::model::TokenId;

/// One row. Rows that agree in it, and in all rows before them, have the same keys and values. Arithmetic and weights
/// need no place in it: an engine has one model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RowKey {
    pub input: RowInput,
    /// The edits in force on the row.
    pub edits: Digest,
    /// Whose data the row is: what is one user's is never another's, so that all of it can be found and cleared.
    pub owner: Digest,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum RowInput {
    Token(TokenId),
    /// Digest of the sequence's soft rows, and which of them it is.
    Soft(Digest, u32),
}

/// What the first page follows: nothing but the salt, which keeps tenants apart.
pub(super) fn root(salt: &Digest) -> Digest {
    let mut digester = Digester::new("demeanor.kv-root/1");
    digester.part(&salt.0);
    digester.finish()
}

/// Key of a full page, given the key of the page before it (or the root).
pub(super) fn page_key(before: &Digest, rows: &[RowKey]) -> Digest {
    let mut digester = Digester::new("demeanor.kv-page/2");
    digester.part(&before.0);
    for row in rows {
        match &row.input {
            RowInput::Token(id) => digester.part(&id.to_le_bytes()),
            RowInput::Soft(rows, index) => digester.part(&rows.0).part(&index.to_le_bytes()),
        };
        digester.part(&row.edits.0).part(&row.owner.0);
    }
    digester.finish()
}

/// Rows at the beginning in which two lists agree.
pub(super) fn common(a: &[RowKey], b: &[RowKey]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

#[cfg(test)]
pub(super) fn tokens(ids: &[TokenId]) -> Vec<RowKey> {
    let row = |id: &TokenId| RowKey {
        input: RowInput::Token(*id),
        edits: Digest::default(),
        owner: Digest::default(),
    };
    ids.iter().map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One part of a row changed, or what is before it, gives another key.
    #[test]
    fn every_part_counts() {
        let row = |input: RowInput, edits: u8, owner: u8| {
            [RowKey { input, edits: Digest([edits; 32]), owner: Digest([owner; 32]) }]
        };
        let salt = |n: u8| root(&Digest([n; 32]));
        let soft = |n: u8, i: u32| RowInput::Soft(Digest([n; 32]), i);
        let all = [
            page_key(&salt(0), &row(RowInput::Token(0), 0, 0)),
            page_key(&salt(1), &row(RowInput::Token(0), 0, 0)),
            page_key(&salt(0), &row(RowInput::Token(1), 0, 0)),
            page_key(&salt(0), &row(RowInput::Token(0), 1, 0)),
            page_key(&salt(0), &row(RowInput::Token(0), 0, 1)),
            page_key(&salt(0), &row(soft(1, 0), 0, 0)),
            page_key(&salt(0), &row(soft(2, 0), 0, 0)),
            page_key(&salt(0), &row(soft(1, 1), 0, 0)),
        ];
        let distinct: std::collections::BTreeSet<_> = all.iter().collect();
        assert_eq!(distinct.len(), all.len());
    }
}
