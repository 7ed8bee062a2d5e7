//! Lives of users: tells a user from one of the same name that was deleted before, for as long as this process runs.

use super::identity::UserId;
use crate::sync::lock;
use std::collections::HashMap;
use std::sync::Mutex;

/// A user's life is 0 when the process found the user in its store, and a new number whenever the user is made or
/// something of the history is erased. What was derived in one life is never stored or served in another. Holds living
/// users only, so no more than the store may have.
#[derive(Default)]
pub(super) struct Lives(Mutex<State>);

#[derive(Default)]
struct State {
    last: u64,
    of: HashMap<UserId, u64>,
}

impl Lives {
    pub fn begin(&self, id: &UserId) {
        let mut state = lock(&self.0);
        state.last += 1;
        let life = state.last;
        state.of.insert(id.clone(), life);
    }

    pub fn end(&self, id: &UserId) {
        let mut state = lock(&self.0);
        state.last += 1;
        state.of.remove(id);
    }

    pub fn of(&self, id: &UserId) -> u64 {
        lock(&self.0).of.get(id).copied().unwrap_or(0)
    }

    /// A moment; see [`Lives::began_after`].
    pub fn now(&self) -> u64 {
        lock(&self.0).last
    }

    /// Whether what was read of the user at `moment` may be of an earlier life.
    pub fn began_after(&self, id: &UserId, moment: u64) -> bool {
        self.of(id) > moment
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_is_made_again_is_another_life() {
        let (lives, id) = (Lives::default(), UserId::parse("ana", "id").unwrap());
        assert_eq!(lives.of(&id), 0);
        let moment = lives.now();
        assert!(!lives.began_after(&id, moment));
        lives.end(&id);
        lives.begin(&id);
        let first = lives.of(&id);
        assert!(lives.began_after(&id, moment) && first > 0);
        lives.end(&id);
        lives.begin(&id);
        assert!(lives.of(&id) > first);
        assert!(!lives.began_after(&id, lives.now()));
    }
}
