//! Pages of the KV cache: who holds which, and the prefix cache that keeps the rows of ended sequences for later ones.

use super::keys::{self, RowKey};
use crate::digest::Digest;
use crate::limits::PAGE_POSITIONS;
use crate::model::PageId;
use std::collections::{BTreeMap, HashMap};

/// All pages of the KV cache. A page is free, held by sequences (counted), or kept by the prefix cache, or the last two.
pub(super) struct Pages {
    free: Vec<PageId>,
    /// Sequences that hold the page.
    holders: Vec<u32>,
    /// What the prefix cache knows of the page; `None` where it does not keep it.
    kept: Vec<Option<Kept>>,
    /// Full kept pages: they are shared as they are.
    by_key: HashMap<Digest, PageId>,
    /// All kept pages by what is before them, in the order they came: the first rows of one can be copied.
    after: HashMap<Digest, Vec<PageId>>,
    /// Kept pages that nobody holds, by the time of their last use: the oldest goes first.
    idle: BTreeMap<u64, PageId>,
    idle_since: Vec<u64>,
    clock: u64,
    /// Whose data stands in the page, from the moment it is taken until somebody else takes it or it is wiped; zero for
    /// nobody's. A free page keeps its owner: its bytes are still there.
    owners: Vec<Digest>,
}

/// Rows that stand in a kept page.
struct Kept {
    /// Key of the page before, or the root.
    before: Digest,
    /// 1 to 64, from the page's beginning.
    rows: Vec<RowKey>,
    /// Key of the page itself if it is full.
    key: Option<Digest>,
}

impl Pages {
    pub fn new(count: usize) -> Pages {
        Pages {
            free: (0..count as PageId).rev().collect(),
            holders: vec![0; count],
            kept: (0..count).map(|_| None).collect(),
            by_key: HashMap::new(),
            after: HashMap::new(),
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
                self.forget_rows(page);
                page
            }
        };
        self.holders[page as usize] = 1;
        self.owners[page as usize] = owner;
        Some(page)
    }

    /// The full page kept under `key`, with one more holder.
    pub fn hold(&mut self, key: &Digest) -> Option<PageId> {
        let page = *self.by_key.get(key)?;
        self.hold_page(page);
        Some(page)
    }

    fn hold_page(&mut self, page: PageId) {
        if self.holders[page as usize] == 0 {
            self.idle.remove(&self.idle_since[page as usize]);
        }
        self.holders[page as usize] += 1;
    }

    /// The kept page after `before` that begins with most of `rows`, with one more holder, and how many they are.
    pub fn hold_longest(&mut self, before: &Digest, rows: &[RowKey]) -> Option<(PageId, usize)> {
        let mut best: Option<(PageId, usize)> = None;
        for &page in self.after.get(before)? {
            let kept = self.kept[page as usize].as_ref()?;
            let common = keys::common(&kept.rows, rows);
            if common > best.map_or(0, |(_, most)| most) {
                best = Some((page, common));
            }
        }
        self.hold_page(best?.0);
        best
    }

    /// Keeps the first `rows` of a page that somebody holds. If another kept page has them all, this one stays its
    /// holder's own; pages that have no others but these give way to it. A full page comes with its key.
    pub fn keep(&mut self, page: PageId, before: Digest, rows: Vec<RowKey>, key: Option<Digest>) {
        debug_assert_eq!(key.is_some(), rows.len() == PAGE_POSITIONS);
        let siblings = self.after.get(&before).cloned().unwrap_or_default();
        let kept_rows = |page: PageId| self.kept[page as usize].as_ref().map_or(&[][..], |kept| &kept.rows);
        if self.kept[page as usize].is_some() || siblings.iter().any(|it| kept_rows(*it).starts_with(&rows)) {
            return;
        }
        let outdone: Vec<PageId> =
            siblings.into_iter().filter(|page| rows.starts_with(kept_rows(*page))).collect();
        for page in outdone {
            self.drop_kept(page);
        }
        if let Some(key) = key {
            self.by_key.insert(key, page);
        }
        self.after.entry(before).or_default().push(page);
        self.kept[page as usize] = Some(Kept { before, rows, key });
    }

    /// Takes a page out of the prefix cache; it is free if nobody holds it.
    fn drop_kept(&mut self, page: PageId) {
        self.forget_rows(page);
        if self.holders[page as usize] == 0 {
            self.idle.remove(&self.idle_since[page as usize]);
            self.free.push(page);
        }
    }

    fn forget_rows(&mut self, page: PageId) {
        let Some(kept) = self.kept[page as usize].take() else { return };
        if let Some(key) = kept.key {
            self.by_key.remove(&key);
        }
        if let Some(siblings) = self.after.get_mut(&kept.before) {
            siblings.retain(|other| *other != page);
            if siblings.is_empty() {
                self.after.remove(&kept.before);
            }
        }
    }

    /// One holder less. A page without holders goes to the cache's idle list if it is kept, else it is free.
    pub fn release(&mut self, page: PageId) {
        let holders = &mut self.holders[page as usize];
        *holders -= 1;
        if *holders > 0 {
            return;
        }
        if self.kept[page as usize].is_some() {
            self.clock += 1;
            self.idle_since[page as usize] = self.clock;
            self.idle.insert(self.clock, page);
        } else {
            self.free.push(page);
        }
    }

    /// Pages with `owner`'s data in them.
    pub fn of(&self, owner: &Digest) -> Vec<PageId> {
        (0..self.total() as PageId).filter(|page| self.owners[*page as usize] == *owner).collect()
    }

    /// Pages with anybody's data in them.
    pub fn owned(&self) -> Vec<PageId> {
        (0..self.total() as PageId).filter(|page| self.owners[*page as usize] != Digest::default()).collect()
    }

    /// Makes `owner`'s pages nobody's and returns them; their content has to be cleared. Nobody may hold one.
    pub fn disown(&mut self, owner: &Digest) -> Vec<PageId> {
        let pages = self.of(owner);
        for &page in &pages {
            debug_assert_eq!(self.holders[page as usize], 0, "a page of an ended owner is held");
            self.owners[page as usize] = Digest::default();
            if self.kept[page as usize].is_some() {
                self.drop_kept(page);
            }
        }
        pages
    }
}

#[cfg(test)]
mod tests {
    use super::keys::tokens;
    use super::*;

    const NOBODY: Digest = Digest([0; 32]);
    const ROOT: Digest = Digest([1; 32]);

    /// A full page whose last token is `last`.
    fn full(last: u32) -> Vec<RowKey> {
        tokens(&(0..63).chain([last]).collect::<Vec<_>>())
    }

    fn key(last: u32) -> Digest {
        keys::page_key(&ROOT, &full(last))
    }

    #[test]
    fn kept_pages_are_found_again_until_evicted_oldest_first() {
        let mut pages = Pages::new(2);
        let (a, b) = (pages.take(NOBODY).unwrap(), pages.take(NOBODY).unwrap());
        assert_eq!(pages.take(NOBODY), None);
        pages.keep(a, ROOT, full(1), Some(key(1)));
        pages.keep(b, ROOT, full(2), Some(key(2)));
        pages.release(a);
        pages.release(b);
        assert_eq!(pages.in_use(), 0);
        assert_eq!(pages.hold(&key(1)), Some(a));
        assert_eq!(pages.in_use(), 1);
        assert_eq!(pages.take(NOBODY), Some(b), "only `b` is idle");
        assert_eq!(pages.hold(&key(2)), None, "its content is gone");
        assert_eq!(pages.hold_longest(&ROOT, &full(2)), Some((a, 63)));
    }

    #[test]
    fn a_shared_page_stays_until_its_last_holder_leaves() {
        let mut pages = Pages::new(1);
        let page = pages.take(NOBODY).unwrap();
        pages.keep(page, ROOT, full(1), Some(key(1)));
        assert_eq!(pages.hold(&key(1)), Some(page));
        pages.release(page);
        assert_eq!(pages.take(NOBODY), None);
        pages.release(page);
        assert_eq!(pages.take(NOBODY), Some(page));
    }

    #[test]
    fn what_another_page_says_already_is_not_kept() {
        let mut pages = Pages::new(3);
        let [a, b, c] = [(); 3].map(|()| pages.take(NOBODY).unwrap());
        pages.keep(a, ROOT, full(1), Some(key(1)));
        pages.keep(b, ROOT, full(1), Some(key(1)));
        pages.keep(c, ROOT, tokens(&[0, 1, 2]), None);
        [b, c].into_iter().for_each(|page| pages.release(page));
        assert_eq!(pages.available(), 2);
        assert_eq!([(); 2].map(|()| pages.take(NOBODY).unwrap()), [c, b]);
        assert_eq!(pages.hold(&key(1)), Some(a));
    }

    #[test]
    fn the_longest_beginning_is_found_and_outdone_pages_are_free() {
        let mut pages = Pages::new(3);
        let [short, other, long] = [(); 3].map(|()| pages.take(NOBODY).unwrap());
        pages.keep(short, ROOT, tokens(&[7, 8]), None);
        pages.keep(other, ROOT, tokens(&[7, 9, 9]), None);
        pages.release(short);
        pages.release(other);
        assert_eq!(pages.hold_longest(&ROOT, &tokens(&[7, 8, 5])), Some((short, 2)));
        pages.release(short);
        assert_eq!(pages.hold_longest(&ROOT, &tokens(&[6])), None);
        assert_eq!(pages.hold_longest(&NOBODY, &tokens(&[7])), None);
        pages.keep(long, ROOT, tokens(&[7, 8, 5, 4]), None);
        pages.release(long);
        assert_eq!(pages.take(NOBODY), Some(short), "`long` says it and more");
        assert_eq!(pages.hold_longest(&ROOT, &tokens(&[7, 8])), Some((long, 2)));
        assert_eq!(pages.take(NOBODY), Some(other));
        assert_eq!(pages.take(NOBODY), None, "`long` is held");
    }

    #[test]
    fn an_owner_leaves_no_page_behind_held_idle_or_free() {
        let (mut pages, owner) = (Pages::new(4), Digest::of(b"owner"));
        let (kept, freed) = (pages.take(owner).unwrap(), pages.take(owner).unwrap());
        let other = pages.take(NOBODY).unwrap();
        pages.keep(kept, ROOT, full(1), Some(key(1)));
        pages.keep(other, ROOT, full(2), Some(key(2)));
        [kept, freed, other].into_iter().for_each(|page| pages.release(page));
        assert_eq!(pages.owned(), [kept, freed]);
        assert_eq!(pages.disown(&owner), [kept, freed]);
        assert!(pages.owned().is_empty());
        assert_eq!(pages.hold(&key(1)), None);
        assert_eq!(pages.hold(&key(2)), Some(other));
        assert_eq!((pages.available(), pages.disown(&owner).len()), (3, 0));
    }
}
