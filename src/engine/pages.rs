//! Pages of the KV cache: who holds which, and the prefix cache that keeps full pages for later requests.

use crate::digest::Digest;
use crate::model::PageId;
use std::collections::{BTreeMap, HashMap};

/// All pages of the KV cache. A page is free, held by sequences (counted), or kept by the prefix cache, or the last two.
pub(super) struct Pages {
    free: Vec<PageId>,
    /// Sequences that hold the page.
    holders: Vec<u32>,
    /// Key under which the prefix cache keeps the page.
    keys: Vec<Option<Digest>>,
    by_key: HashMap<Digest, PageId>,
    /// Kept pages that nobody holds, by the time of their last use: the oldest goes first.
    idle: BTreeMap<u64, PageId>,
    idle_since: Vec<u64>,
    clock: u64,
    /// Whose data stands in the page, from the moment it is taken until somebody else takes it or it is wiped; zero for
    /// nobody's. A free page keeps its owner: its bytes are still there.
    owners: Vec<Digest>,
}

impl Pages {
    pub fn new(count: usize) -> Pages {
        Pages {
            free: (0..count as PageId).rev().collect(),
            holders: vec![0; count],
            keys: vec![None; count],
            by_key: HashMap::new(),
            idle: BTreeMap::new(),
            idle_since: vec![0; count],
            clock: 0,
            owners: vec![Digest::default(); count],
        }
    }

    pub fn total(&self) -> usize {
        self.holders.len()
    }

    /// Pages that can be taken: free ones and kept ones that nobody holds.
    pub fn available(&self) -> usize {
        self.free.len() + self.idle.len()
    }

    /// Pages held by sequences.
    pub fn in_use(&self) -> usize {
        self.total() - self.available()
    }

    /// A page for one holder and `owner`'s data, dropped from the prefix cache if it was the oldest there; its old content
    /// is still in it and has to be cleared.
    pub fn take(&mut self, owner: Digest) -> Option<PageId> {
        let page = match self.free.pop() {
            Some(page) => page,
            None => {
                let (_, page) = self.idle.pop_first()?;
                self.drop_key(page);
                page
            }
        };
        self.holders[page as usize] = 1;
        self.owners[page as usize] = owner;
        Some(page)
    }

    fn drop_key(&mut self, page: PageId) {
        if let Some(key) = self.keys[page as usize].take() {
            self.by_key.remove(&key);
        }
    }

    /// Pages with `owner`'s data in them.
    pub fn of(&self, owner: &Digest) -> Vec<PageId> {
        (0..self.total() as PageId).filter(|page| self.owners[*page as usize] == *owner).collect()
    }

    /// Whether a page has an owner's data in it.
    pub fn is_owned(&self, page: PageId) -> bool {
        self.owners[page as usize] != Digest::default()
    }

    /// Makes `owner`'s pages nobody's and returns them; their content has to be cleared. Nobody may hold one.
    pub fn disown(&mut self, owner: &Digest) -> Vec<PageId> {
        let pages = self.of(owner);
        for &page in &pages {
            assert_eq!(self.holders[page as usize], 0, "a page of an ended owner is held");
            self.owners[page as usize] = Digest::default();
            if self.keys[page as usize].is_some() {
                self.drop_key(page);
                self.idle.remove(&self.idle_since[page as usize]);
                self.free.push(page);
            }
        }
        pages
    }

    /// The page kept under `key`, with one more holder.
    pub fn hold(&mut self, key: &Digest) -> Option<PageId> {
        let page = *self.by_key.get(key)?;
        if self.holders[page as usize] == 0 {
            self.idle.remove(&self.idle_since[page as usize]);
        }
        self.holders[page as usize] += 1;
        Some(page)
    }

    /// Keeps a full page under its key. If another page has that key already, this one stays its holder's own.
    pub fn keep(&mut self, page: PageId, key: Digest) {
        if self.keys[page as usize].is_none() && !self.by_key.contains_key(&key) {
            self.keys[page as usize] = Some(key);
            self.by_key.insert(key, page);
        }
    }

    /// One holder less. A page without holders goes to the cache's idle list if it is kept, else it is free.
    pub fn release(&mut self, page: PageId) {
        let holders = &mut self.holders[page as usize];
        *holders -= 1;
        if *holders > 0 {
            return;
        }
        if self.keys[page as usize].is_some() {
            self.clock += 1;
            self.idle_since[page as usize] = self.clock;
            self.idle.insert(self.clock, page);
        } else {
            self.free.push(page);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOBODY: Digest = Digest([0; 32]);

    fn key(name: &str) -> Digest {
        Digest::of(name.as_bytes())
    }

    #[test]
    fn kept_pages_are_found_again_until_evicted_oldest_first() {
        let mut pages = Pages::new(2);
        let (a, b) = (pages.take(NOBODY).unwrap(), pages.take(NOBODY).unwrap());
        assert_eq!(pages.take(NOBODY), None);
        pages.keep(a, key("a"));
        pages.keep(b, key("b"));
        pages.release(a);
        pages.release(b);
        assert_eq!(pages.in_use(), 0);
        assert_eq!(pages.hold(&key("a")), Some(a));
        assert_eq!(pages.in_use(), 1);
        assert_eq!(pages.take(NOBODY), Some(b), "only `b` is idle");
        assert_eq!(pages.hold(&key("b")), None, "its content is gone");
    }

    #[test]
    fn a_shared_page_stays_until_its_last_holder_leaves() {
        let mut pages = Pages::new(1);
        let page = pages.take(NOBODY).unwrap();
        pages.keep(page, key("a"));
        assert_eq!(pages.hold(&key("a")), Some(page));
        pages.release(page);
        assert_eq!(pages.take(NOBODY), None);
        pages.release(page);
        assert_eq!(pages.take(NOBODY), Some(page));
    }

    #[test]
    fn a_second_page_with_the_same_key_is_not_kept() {
        let mut pages = Pages::new(2);
        let (a, b) = (pages.take(NOBODY).unwrap(), pages.take(NOBODY).unwrap());
        pages.keep(a, key("same"));
        pages.keep(b, key("same"));
        pages.release(b);
        assert_eq!(pages.take(NOBODY), Some(b));
        assert_eq!(pages.hold(&key("same")), Some(a));
    }

    #[test]
    fn an_owner_leaves_no_page_behind_held_idle_or_free() {
        let (mut pages, owner) = (Pages::new(4), key("owner"));
        let (kept, freed) = (pages.take(owner).unwrap(), pages.take(owner).unwrap());
        let other = pages.take(NOBODY).unwrap();
        pages.keep(kept, key("kept"));
        pages.keep(other, key("other"));
        [kept, freed, other].map(|page| pages.release(page));
        assert_eq!(pages.disown(&owner), [kept, freed]);
        assert_eq!(pages.of(&owner), []);
        assert_eq!(pages.hold(&key("kept")), None);
        assert_eq!(pages.hold(&key("other")), Some(other));
        assert_eq!((pages.available(), pages.disown(&owner).len()), (3, 0));
    }
}
