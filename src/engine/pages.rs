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

    /// A page for one holder, dropped from the prefix cache if it was the oldest there; its old content is still in it.
    pub fn take(&mut self) -> Option<PageId> {
        let page = match self.free.pop() {
            Some(page) => page,
            None => {
                let (_, page) = self.idle.pop_first()?;
                if let Some(key) = self.keys[page as usize].take() {
                    self.by_key.remove(&key);
                }
                page
            }
        };
        self.holders[page as usize] = 1;
        Some(page)
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

    fn key(name: &str) -> Digest {
        Digest::of(name.as_bytes())
    }

    #[test]
    fn kept_pages_are_found_again_until_evicted_oldest_first() {
        let mut pages = Pages::new(2);
        let (a, b) = (pages.take().unwrap(), pages.take().unwrap());
        assert_eq!(pages.take(), None);
        pages.keep(a, key("a"));
        pages.keep(b, key("b"));
        pages.release(a);
        pages.release(b);
        assert_eq!(pages.in_use(), 0);
        assert_eq!(pages.hold(&key("a")), Some(a));
        assert_eq!(pages.in_use(), 1);
        assert_eq!(pages.take(), Some(b), "only `b` is idle");
        assert_eq!(pages.hold(&key("b")), None, "its content is gone");
    }

    #[test]
    fn a_shared_page_stays_until_its_last_holder_leaves() {
        let mut pages = Pages::new(1);
        let page = pages.take().unwrap();
        pages.keep(page, key("a"));
        assert_eq!(pages.hold(&key("a")), Some(page));
        pages.release(page);
        assert_eq!(pages.take(), None);
        pages.release(page);
        assert_eq!(pages.take(), Some(page));
    }

    #[test]
    fn a_second_page_with_the_same_key_is_not_kept() {
        let mut pages = Pages::new(2);
        let (a, b) = (pages.take().unwrap(), pages.take().unwrap());
        pages.keep(a, key("same"));
        pages.keep(b, key("same"));
        pages.release(b);
        assert_eq!(pages.take(), Some(b));
        assert_eq!(pages.hold(&key("same")), Some(a));
    }
}
